"""The cost-quality curve as an SVG or PNG picture, drawn by matplotlib (optional package group `pictures`)."""

from collections.abc import Sequence
from pathlib import Path

from rollout_app.backtest.report import NUSD
from rollout_app.backtest.run import Backtest, Line


def draw(result: Backtest, path: str) -> None:
    """Write the picture in the format of the file extension. Raises `ValueError` if it cannot be drawn."""
    if Path(path).suffix.lower() not in (".svg", ".png"):
        raise ValueError(f"{path}: the file name must end in .svg or .png.")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError("A picture needs the package matplotlib: pip install matplotlib.") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    routed = _points(result.policies)
    singles = _points(result.models)
    oracle = _points([result.oracle])
    if not singles:
        raise ValueError("There is no curve to draw, because no task has all costs known.")
    axes.plot(
        [point.cost / NUSD for point in result.frontier],
        [point.quality * 100 for point in result.frontier],
        "--", color="#8a8f98", label="random mix of the models", zorder=1,
    )  # fmt: skip
    for points, marker, colour, label in (
        (singles, "s", "#4b5563", "one model for everything"),
        (routed, "o", "#2563eb", "the policy" if len(routed) == 1 else "policies"),
        (oracle, "*", "#b45309", "oracle (cheapest model that is right)"),
    ):
        _scatter(axes, points, marker, colour, label)
    most = max(point[1] for point in [*singles, *routed])
    for name, cost, value, _, _ in [*singles, *(routed if len(routed) <= 12 else [])]:
        inwards = cost > 0.75 * most  # names near the right edge go to the left of their point
        axes.annotate(
            name.rpartition("/")[2], (cost, value), textcoords="offset points", fontsize=8,
            xytext=(-6 if inwards else 6, -12), ha="right" if inwards else "left",
        )  # fmt: skip
    axes.set_xlabel("US dollars per task (mean)")
    axes.set_ylabel("tasks done well (%), with 95 % intervals")
    axes.set_title(f"Cost and quality of {result.compared:,} recorded tasks", loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.endswith(".svg") else None)


Drawn = tuple[str, float, float, float, float]


def _points(lines: Sequence[Line]) -> list[Drawn]:
    """Return (name, dollars per task, per cent correct, error below, error above) of lines with known figures."""
    found = []
    for line in lines:
        cost, accuracy = line.cost_per_task.value, line.accuracy
        if cost is None or accuracy.value is None:
            continue
        low = accuracy.value if accuracy.low is None else accuracy.low
        high = accuracy.value if accuracy.high is None else accuracy.high
        # A percentile interval of few tasks may not contain its estimate.
        below, above = max(0.0, accuracy.value - low), max(0.0, high - accuracy.value)
        found.append((line.name, cost / NUSD, accuracy.value * 100, below * 100, above * 100))
    return found


def _scatter(axes: "object", points: Sequence[Drawn], marker: str, colour: str, label: str) -> None:
    if points:
        _, costs, values, below, above = zip(*points, strict=True)
        axes.errorbar(costs, values, yerr=[below, above], fmt=marker, color=colour, label=label, capsize=2)  # type: ignore[attr-defined]
