"""Charts as figures for an inline SVG. Pure: no colours, no scripts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 560, 190
LEFT, RIGHT, TOP, BOTTOM = 70, 12, 12, 26  # room for the labels

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True, slots=True)
class ChartLine:
    """One arm: its path, and its last point, drawn as a dot so that a single point is visible."""

    name: str
    path: str
    x: float
    y: float
    last: str


@dataclass(frozen=True, slots=True)
class Chart:
    lines: list[ChartLine]
    across: list[Tick]  # time axis
    up: list[Tick]  # value axis
    bound: Tick | None  # a dashed line: the quality bar
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


def chart(
    series: Mapping[str, Sequence[Point]],
    *,
    written: Callable[[float], str],
    short: Callable[[float], str],
    when: Callable[[float], str],
    bound: float | None = None,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Chart | None:
    """Lines of (time, value) on common axes; None when there is nothing to draw.

    `written` puts a value into words, `short` a round one on the axis, `when` a time; the value axis stays
    within `limits`.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        return None
    low, high, step = _scale([y for _, y in points] + ([] if bound is None else [bound]), limits)
    first, last = min(x for x, _ in points), max(x for x, _ in points)

    def across(x: float) -> float:
        part = (x - first) / (last - first) if last > first else 0.5
        return round(LEFT + (WIDTH - LEFT - RIGHT) * part, 1)

    def up(y: float) -> float:
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low), 1)

    values = [low + step * i for i in range(round((high - low) / step) + 1)]
    times = [first, (first + last) / 2, last] if last > first else [first]
    return Chart(
        lines=[_line(name, line, across, up, written) for name, line in series.items() if line],
        across=[Tick(across(x), when(x)) for x in times],
        up=[Tick(up(y), short(y)) for y in values],
        bound=None if bound is None else Tick(up(bound), written(bound)),
    )


def _line(
    name: str,
    points: Sequence[Point],
    across: Callable[[float], float],
    up: Callable[[float], float],
    written: Callable[[float], str],
) -> ChartLine:
    path = "M" + " L".join(f"{across(x)} {up(y)}" for x, y in points)
    x, y = points[-1]
    return ChartLine(name, path, across(x), up(y), written(y))


def _scale(values: Sequence[float], limits: tuple[float, float]) -> tuple[float, float, float]:
    """(low, high, step) of an axis that holds all values, in 2 to 5 round steps."""
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    low, high = max(low - room, limits[0]), min(high + room, limits[1])
    raw = (high - low) / 4
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
    bottom = math.floor(low / step + 1e-9) * step
    top = math.ceil(high / step - 1e-9) * step
    return bottom, max(top, bottom + step), step


@dataclass(frozen=True, slots=True)
class IntervalPicture:
    """An estimate with its interval on a short axis, 0 and the margin marked. All in pixels of `width`."""

    low: float
    high: float
    estimate: float
    zero: float
    margin: float
    width: int = 168


def interval_picture(
    estimate: float, low: float, high: float, *, zero: float | None, margin: float, width: int = 168
) -> IntervalPicture:
    """No harm in the middle; the axis holds margin and estimate, an interval beyond is cut at the ends.

    So wide an interval as early data gives would otherwise squeeze everything that matters into one pixel.
    """
    origin = 0.0 if zero is None else zero
    unit = max(abs(margin - origin), abs(estimate - origin) * 0.6) or 1.0

    def at(x: float) -> float:
        return round(min(max((x - origin) / unit * 0.25 + 0.5, 0.02), 0.98) * width, 1)

    return IntervalPicture(at(low), at(high), at(estimate), at(origin), at(margin), width)
