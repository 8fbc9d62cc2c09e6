"""Why the cost changed, cell by cell, so that the parts add up to the whole. Pure.

A cell is what a route finds and does not make: a workload's endpoint. Between two times its cost changed by

    volume      there were more or fewer tasks in all, at the old mix and the old cost per task
    mix         more or fewer of them came to this cell, at the old cost per task
    behaviour   a task of this cell costs more or less than it did: models, prices, escalations, retries

Counts are of tasks with a known cost, money is in nano-USD and exact: volume and mix are rounded, and behaviour is
what is left. A cell without tasks before has no old cost per task: all of its cost is mix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, NamedTuple, TypeVar

from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.engine.diagnosis.figures import NOTHING, total

K = TypeVar("K")


class CostEffects(NamedTuple):
    """Parts of a change of cost, in nano-USD."""

    volume: int = 0
    mix: int = 0
    behaviour: int = 0

    @property
    def total(self) -> int:
        return self.volume + self.mix + self.behaviour


NO_EFFECTS = CostEffects()


@dataclass(frozen=True, slots=True)
class CellChange(Generic[K]):
    """One cell, now and before, with what its cost changed by and why."""

    key: K
    now: OutcomeSums
    before: OutcomeSums
    effects: CostEffects

    @property
    def success(self) -> float | None:
        """Change of the success rate; None where one of them is not known."""
        now, before = self.now.success, self.before.success
        return None if now is None or before is None else now - before

    @property
    def saved(self) -> int:
        """What its tasks cost less than as many did before, at one mix, in nano-USD."""
        return -self.effects.behaviour

    @property
    def weight(self) -> float:
        """How much changed, in nano-USD: cost per task, and successes that were lost or won, at what one costs."""
        moved = abs(self.effects.behaviour) + abs(self.effects.mix)
        success = self.success
        if not success:
            return moved
        price = self.now.cost_per_success or self.before.cost_per_success or 0.0
        return moved + abs(success) * self.now.graded * price


def attribute(now: Mapping[K, OutcomeSums], before: Mapping[K, OutcomeSums]) -> list[CellChange[K]]:
    """Every cell of either time, what changed most first. The effects add up to the whole change of cost."""
    growth = _growth(now, before)
    cells = [
        CellChange(key, ours, theirs, _effects(ours, theirs, growth))
        for key in {**now, **before}
        for ours, theirs in [(now.get(key, NOTHING), before.get(key, NOTHING))]
    ]
    return sorted(cells, key=attrgetter("weight"), reverse=True)


def _growth(now: Mapping[Any, OutcomeSums], before: Mapping[Any, OutcomeSums]) -> float | None:
    """Priced tasks now for each one before; None where there were none."""
    then = sum(sums.cost_n for sums in before.values())
    return sum(sums.cost_n for sums in now.values()) / then if then else None


def _effects(now: OutcomeSums, before: OutcomeSums, growth: float | None) -> CostEffects:
    change = now.cost - before.cost
    old = before.cost_per_task
    if old is None or growth is None:
        return CostEffects(mix=change)
    volume = round(before.cost * (growth - 1))
    if not now.cost_n:
        return CostEffects(volume=volume, mix=change - volume)
    mix = round((now.cost_n - growth * before.cost_n) * old)
    return CostEffects(volume, mix, change - volume - mix)


def joined(key: K, cells: Sequence[CellChange[Any]]) -> CellChange[K]:
    """Cells taken together: their sums and their effects."""
    return CellChange(
        key,
        total(cell.now for cell in cells),
        total(cell.before for cell in cells),
        CostEffects(*map(sum, zip(*(cell.effects for cell in cells), strict=True))) if cells else NO_EFFECTS,
    )


@dataclass(frozen=True, slots=True)
class ModelShift:
    """The model whose share of a cell's tasks grew most, and by how much (0.31 = 31 % of the tasks)."""

    model: str
    share: float


def model_shift(now: Mapping[str, int], before: Mapping[str, int]) -> ModelShift | None:
    """From tasks by model; None where nothing was before, or nothing moved."""
    ours, theirs = sum(now.values()), sum(before.values())
    if not ours or not theirs:
        return None
    shifts = {model: now.get(model, 0) / ours - before.get(model, 0) / theirs for model in {**now, **before}}
    model = max(shifts, key=lambda name: (shifts[name], name))
    return ModelShift(model, shifts[model]) if shifts[model] > 0 else None
