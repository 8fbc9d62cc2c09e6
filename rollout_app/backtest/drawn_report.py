"""The result of the drawn tasks of a router's log, as text and as plain data. Costs in dollars."""

from collections.abc import Iterable
from typing import Any

from pointsman.plurals import counted
from rollout_app.backtest.doubly_robust import CLIP, LEAST_UNITS, Value, ValueChange
from rollout_app.backtest.drawn import Drawn
from rollout_app.backtest.tally import Interval

NUSD = 10**9


def as_text(name: str, found: Drawn) -> str:
    """Describe the estimate, its coverage, and what is unknown."""
    if not found.tasks:
        lines = [
            f"{name}: no task's arm was drawn. Outcomes are known only where the policy asks the same model."
        ]
        return "\n".join([*lines, *_left_out(found)])
    shown = counted(found.tasks, "task with a drawn arm shows", "tasks with a drawn arm show")
    lines = [f"{name}: {shown} what it would have done."]
    if found.value is None:
        lines.append("  No arm acted as it would, so nothing is known about it.")
    else:
        lines += _value(found.value)
        lines += _change(found.change)
    if unsupported := sum(found.unsupported.values()):
        each = ", ".join(f"{count:,} to {model}" for model, count in found.unsupported.most_common(5))
        lines.append(
            f"  Unknown: it would send {_percent(unsupported / found.tasks)} of them to a model that no arm asked, or "
            f"continue as no arm did ({each})."
        )
        if (bounds := found.bounds) is not None:
            lines.append(
                f"  Over all of them, its success rate is between {_percent(bounds[0])} and {_percent(bounds[1])}, "
                "whatever the unknown outcomes were."
            )
    return "\n".join([*lines, *_left_out(found)])


def _value(value: Value) -> list[str]:
    lines = [
        f"  From {counted(value.tasks, 'task')} of {counted(value.units, 'unit')}; "
        f"{value.matched:,} were served as the policy would have served them, "
        f"equivalent to {value.effective_units:,.0f} units of equal weight.",
        f"  success {_share(value.success)}, {_dollars(value.cost_per_task)} dollars per task, "
        f"{_dollars(value.cost_per_success)} dollars per success",
    ]
    if value.effective_units < LEAST_UNITS:
        lines.append(f"  There are fewer than {LEAST_UNITS} effective units, too few for an interval.")
    for count, what in (
        (value.ungraded, "of these have no grade and are left out of success rates"),
        (value.unpriced, "have no cost and are left out of costs"),
        (value.clipped, f"had a propensity below {CLIP:.1%} and count as if it were {CLIP:.1%}"),
    ):
        if count:
            lines.append(f"  {count:,} {what}.")
    return lines


def _change(change: ValueChange | None) -> list[str]:
    if change is None:
        return []
    return [
        f"  Compared with the first policy, on {change.tasks:,} tasks that tell about both: success "
        f"{_points(change.success)}, cost per task {_change_of(change.cost_per_task)}, cost per success "
        f"{_change_of(change.cost_per_success)}."
    ]


def _left_out(found: Drawn) -> list[str]:
    lines = [f"  Left out: {counted(count, 'task')}, {why}." for why, count in found.left_out.most_common()]
    if found.undrawn and found.tasks:
        lines.append(
            f"  {found.undrawn:,} further tasks were not drawn. Only one arm could have served them, so they are not "
            "used here."
        )
    if found.missing:
        names = ", ".join(f"{name} ({count:,})" for name, count in found.missing.most_common(5))
        lines.append(f"  Inputs missing from the lines, so that rules did not match: {names}.")
    return [*lines, *(f"  {one}" for one in found.passed_over)]


def as_document(found: Drawn) -> dict[str, Any]:
    """Return plain data; null: unknown."""
    value, change = found.value, found.change
    return {
        "tasks": found.tasks,
        "undrawn": found.undrawn,
        "unsupported": dict(found.unsupported),
        "left_out": dict(found.left_out),
        "missing_inputs": dict(found.missing),
        "passed_over": found.passed_over,
        "value": value and {
            "tasks": value.tasks, "units": value.units, "matched": value.matched,
            "effective_units": value.effective_units, "ungraded": value.ungraded, "unpriced": value.unpriced,
            "clipped": value.clipped, "success": _interval(value.success),
            "cost_per_task_usd": _interval(value.cost_per_task, NUSD),
            "cost_per_success_usd": _interval(value.cost_per_success, NUSD),
        },
        "change": change and {
            "tasks": change.tasks, "success": _interval(change.success),
            "cost_per_task": _interval(change.cost_per_task), "cost_per_success": _interval(change.cost_per_success),
        },
        "success_bounds": found.bounds and {"low": found.bounds[0], "high": found.bounds[1]},
    }  # fmt: skip


def _interval(found: Interval, unit: float = 1) -> dict[str, float | None]:
    value, low, high = (
        None if edge is None else edge / unit for edge in (found.value, found.low, found.high)
    )
    return {"value": value, "low": low, "high": high}


def _with_interval(found: Interval, written: Iterable[str]) -> str:
    value, low, high = written
    if found.value is None:
        return "not known"
    return value if found.low is None else f"{value} ({low} to {high})"


def _share(found: Interval) -> str:
    return _with_interval(found, (_percent(edge) for edge in (found.value, found.low, found.high)))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _dollars(found: Interval) -> str:
    edges = (found.value, found.low, found.high)
    return _with_interval(found, ("–" if edge is None else f"{edge / NUSD:.6f}" for edge in edges))


def _points(found: Interval) -> str:
    edges = (found.value, found.low, found.high)
    return _with_interval(found, ("–" if edge is None else f"{edge * 100:+.1f} points" for edge in edges))


def _change_of(found: Interval) -> str:
    edges = (found.value, found.low, found.high)
    return _with_interval(found, ("–" if edge is None else f"{edge:+.1%}" for edge in edges))
