"""Changes as sentences: "/summary (team Support) moved 31 % of its tasks to small: −$412 a day, …". Pure."""

from typing import Any

from controlplane.web.display import money, percent
from rollout_app.review.attribution import CellChange, ModelShift
from rollout_app.review.span import TrafficSpan

LEAST_SHIFT = 0.01  # of the tasks; smaller shifts are not mentioned
MINUS = "\N{MINUS SIGN}"


def change_sentence(
    name: str, owner: str, cell: CellChange[Any], *, span: TrafficSpan, bar: float, shift: ModelShift | None
) -> str:
    """Describe the change of one cell: where its tasks went, the cost over `span`, and the effect on success."""
    who = f"{name} (team {owner})" if owner else name
    if not cell.before.tasks:
        cost = f"{money(cell.now.cost / span.divisor)} {span.words}" if cell.now.cost_n else "cost unknown"
        return f"{who} is new: {cost}, success {_success(cell, bar)}"
    if not cell.now.tasks:
        before = f"they cost {money(cell.before.cost)}" if cell.before.cost_n else "their cost is unknown"
        return f"{who} had no tasks in this period; in the one before, {before}."
    moved = (
        f" moved {percent(shift.share, 0)} of its tasks to {shift.model}"
        if _is_shift(shift) and shift
        else ""
    )
    changed = cell.effects.behaviour + cell.effects.mix
    cost = _change(changed, span) if cell.now.cost_n and cell.before.cost_n else "change in cost unknown"
    return f"{who}{moved}: {cost}, success {_success(cell, bar)}"


def _is_shift(shift: ModelShift | None) -> bool:
    return shift is not None and shift.share >= LEAST_SHIFT


def _success(cell: CellChange[Any], bar: float) -> str:
    now, before = cell.now.success, cell.before.success
    if now is None:
        return "unknown: no task has a grade."
    where = f"within the bar of {percent(bar)}" if now >= bar else f"below the bar of {percent(bar)}"
    rates = percent(now) if before is None else f"{percent(before)} → {percent(now)}"
    return f"{rates} ({where})."


def _change(nusd: float, span: TrafficSpan) -> str:
    sign = "+" if nusd > 0 else MINUS if nusd < 0 else ""
    return f"{sign}{money(abs(nusd) / span.divisor)} {span.words}"
