"""Changes as sentences: "/summary (team Support) moved 31 % of its tasks to small: −$412 a day, …". Pure."""

from typing import Any

from controlplane.web.display import money, percent
from rollout_app.review.attribution import CellChange, ModelShift

LEAST_SHIFT = 0.01  # of the tasks; smaller shifts are not mentioned
MINUS = "\N{MINUS SIGN}"


def change_sentence(
    name: str, owner: str, cell: CellChange[Any], *, days: float, bar: float, shift: ModelShift | None
) -> str:
    """Describe the change of one cell: where its tasks went, the cost per day, and the effect on success."""
    who = f"{name} (team {owner})" if owner else name
    if not cell.before.tasks:
        return f"{who} is new: {_per_day(cell.now.cost / days)}, success {_success(cell, bar)}"
    if not cell.now.tasks:
        return f"{who} had no tasks: {_signed_per_day(-cell.before.cost / days)}."
    moved = (
        f" moved {percent(shift.share, 0)} of its tasks to {shift.model}"
        if _is_shift(shift) and shift
        else ""
    )
    changed = cell.effects.behaviour + cell.effects.mix
    return f"{who}{moved}: {_signed_per_day(changed / days)}, success {_success(cell, bar)}"


def _is_shift(shift: ModelShift | None) -> bool:
    return shift is not None and shift.share >= LEAST_SHIFT


def _success(cell: CellChange[Any], bar: float) -> str:
    now, before = cell.now.success, cell.before.success
    if now is None:
        return "unknown: no task has a grade."
    where = f"within the bar of {percent(bar)}" if now >= bar else f"below the bar of {percent(bar)}"
    rates = percent(now) if before is None else f"{percent(before)} → {percent(now)}"
    return f"{rates} ({where})."


def _per_day(nusd: float) -> str:
    return f"{money(nusd)} a day"


def _signed_per_day(nusd: float) -> str:
    sign = "+" if nusd > 0 else MINUS if nusd < 0 else ""
    return f"{sign}{money(abs(nusd))} a day"
