"""Data for charts. The browser draws lines over time with Chart.js, which the frame includes; intervals are inline SVG.

Pure: no colours, no scripts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Point = tuple[float, float]  # Unix seconds, value


@dataclass(frozen=True, slots=True)
class LineChart:
    """Lines over time. `unit`: how the browser formats values; `threshold`: a dashed line with a name."""

    name: str
    label: str
    unit: Literal["share", "nusd", "percent"]
    lines: Mapping[str, Sequence[Point]]
    threshold: float | None = None
    threshold_name: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)  # line → css class; default: the line's own name

    def __bool__(self) -> bool:
        return any(self.lines.values())

    @property
    def element(self) -> str:
        """The id of the script element that holds `data`."""
        return f"chart-{self.name}-data"

    @property
    def data(self) -> dict[str, Any]:
        """The chart as the script expects it."""
        return {
            "unit": self.unit,
            "lines": [
                {"name": name, "style": self.styles.get(name, name), "points": points}
                for name, points in self.lines.items()
                if points
            ],
            "threshold": self.threshold,
            "thresholdName": self.threshold_name,
        }


@dataclass(frozen=True, slots=True)
class IntervalPicture:
    """An estimate with its interval on a short axis that marks 0 and the margin. In pixels of `width`."""

    low: float
    high: float
    estimate: float
    zero: float
    margin: float
    width: int = 168


def interval_picture(
    estimate: float, low: float, high: float, *, zero: float | None, margin: float, width: int = 168
) -> IntervalPicture:
    """Place the estimate on an axis with no harm in the middle.

    The axis covers margin and estimate; a longer interval is cut off at the ends. Otherwise the wide intervals of
    early data would squeeze everything else into one pixel.
    """
    origin = 0.0 if zero is None else zero
    unit = max(abs(margin - origin), abs(estimate - origin) * 0.6) or 1.0

    def at(x: float) -> float:
        return round(min(max((x - origin) / unit * 0.25 + 0.5, 0.02), 0.98) * width, 1)

    return IntervalPicture(at(low), at(high), at(estimate), at(origin), at(margin), width)
