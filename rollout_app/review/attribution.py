"""Why the cost changed, cell by cell, with parts that add up to the whole. Pure.

A cell is given to the router and not chosen by it: an endpoint of a workload. Between two periods its cost changed by

    volume      more or fewer tasks in total, at the old mix and the old cost per task
    mix         a larger or smaller share of them in this cell, at the old cost per task
    coverage    a larger or smaller share of the cell's tasks reported a cost, at the old cost per task
    behaviour   a different cost per task in this cell: models, prices, escalations, retries

Costs are those that are known, and a cost per task is taken over the tasks with one. Without coverage, an endpoint
that lost its prices would look like a shift of traffic to the others. Money is exact, in nano-USD: the last part is
the remainder of the rounded ones. A cell without earlier tasks has no old cost per task, so all of its cost is mix;
one whose earlier tasks had no known cost has only coverage.
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
    coverage: int = 0
    behaviour: int = 0

    @property
    def total(self) -> int:
        return sum(self)


NO_EFFECTS = CostEffects()


class KnownEffects(NamedTuple):
    """The same parts as they are shown; None: unknown."""

    total: int | None = None
    volume: int | None = None
    mix: int | None = None
    coverage: int | None = None
    behaviour: int | None = None


@dataclass(frozen=True, slots=True)
class Comparable:
    """What two periods allow to compare.

    `priced`: both have tasks with a cost. `whole`: the outcomes of the whole earlier period are known, so that the
    amounts of traffic and cost compare; without it only shares and costs per task do.
    """

    priced: bool
    whole: bool

    @classmethod
    def of(cls, whole: "CellChange[Any]", *, partial: bool) -> "Comparable":
        """`whole`: all cells together. A period without tasks after one with them has no cost, which is known."""
        now = whole.now.cost_n or not whole.now.tasks
        return cls(bool(whole.before.cost_n and now), not partial)

    def known(self, effects: CostEffects) -> KnownEffects:
        if not self.priced:
            return KnownEffects()
        if not self.whole:
            return KnownEffects(mix=effects.mix, coverage=effects.coverage, behaviour=effects.behaviour)
        return KnownEffects(effects.total, *effects)


@dataclass(frozen=True, slots=True)
class CellChange(Generic[K]):
    """One cell now and before, with the change of its cost and the reasons."""

    key: K
    now: OutcomeSums
    before: OutcomeSums
    effects: CostEffects
    compared: bool = True  # an endpoint in it has a known cost in both periods

    @property
    def success(self) -> float | None:
        """Change of the success rate; None if either rate is unknown."""
        now, before = self.now.success, self.before.success
        return None if now is None or before is None else now - before

    @property
    def saved(self) -> int | None:
        """How much less its tasks cost than the same number before, at one mix, in nano-USD. None: nothing compares."""
        return -self.effects.behaviour if self.compared else None

    @property
    def weight(self) -> float:
        """The size of the change in nano-USD: cost per task, and successes lost or won at what one costs."""
        moved = abs(self.effects.behaviour) + abs(self.effects.mix)
        success = self.success
        if not success:
            return moved
        price = self.now.cost_per_success or self.before.cost_per_success or 0.0
        return moved + abs(success) * self.now.graded * price


def attribute(now: Mapping[K, OutcomeSums], before: Mapping[K, OutcomeSums]) -> list[CellChange[K]]:
    """Return every cell of either period, largest change first."""
    return sorted(changes(now, before), key=attrgetter("weight"), reverse=True)


def changes(now: Mapping[K, OutcomeSums], before: Mapping[K, OutcomeSums]) -> list[CellChange[K]]:
    """Return every cell of either period. The effects add up to the whole change of cost."""
    growth = _growth(now, before)
    return [
        CellChange(key, ours, theirs, _effects(ours, theirs, growth), bool(ours.cost_n and theirs.cost_n))
        for key in {**now, **before}
        for ours, theirs in [(now.get(key, NOTHING), before.get(key, NOTHING))]
    ]


def _growth(now: Mapping[Any, OutcomeSums], before: Mapping[Any, OutcomeSums]) -> float | None:
    """Return tasks now per task before, of those with a known cost at each cell's earlier coverage.

    None if there were none. Cells whose cost was never known do not count: their growth would look like a shift away
    from the others.
    """
    then = sum(sums.cost_n for sums in before.values())
    if not then:
        return None
    return sum(_as_before(ours, before.get(key, NOTHING)) for key, ours in now.items()) / then


def _as_before(now: OutcomeSums, before: OutcomeSums) -> float:
    """Return the number of tasks with a known cost, at the cell's earlier coverage."""
    return now.tasks * before.cost_n / before.tasks if before.tasks else now.cost_n


def _effects(now: OutcomeSums, before: OutcomeSums, growth: float | None) -> CostEffects:
    change = now.cost - before.cost
    if not before.tasks:
        return CostEffects(mix=change)
    old = before.cost_per_task
    if old is None or growth is None:
        return CostEffects(coverage=change)
    volume = round(before.cost * (growth - 1))
    if not now.tasks:
        return CostEffects(volume, mix=change - volume)
    as_before = _as_before(now, before)
    mix = round((as_before - growth * before.cost_n) * old)
    if not now.cost_n:
        return CostEffects(volume, mix, coverage=change - volume - mix)
    coverage = round((now.cost_n - as_before) * old)
    return CostEffects(volume, mix, coverage, behaviour=change - volume - mix - coverage)


def joined(key: K, cells: Sequence[CellChange[Any]]) -> CellChange[K]:
    """Combine cells: add up their sums and effects."""
    return CellChange(
        key,
        total(cell.now for cell in cells),
        total(cell.before for cell in cells),
        CostEffects(*map(sum, zip(*(cell.effects for cell in cells), strict=True))) if cells else NO_EFFECTS,
        any(cell.compared for cell in cells),
    )


@dataclass(frozen=True, slots=True)
class ModelShift:
    """The model whose share of a cell's tasks grew most, and by how much (0.31 = 31 % of the tasks)."""

    model: str
    share: float


def model_shift(now: Mapping[str, int], before: Mapping[str, int]) -> ModelShift | None:
    """Return the largest shift from counts of tasks by model; None if there were no tasks before or nothing moved."""
    ours, theirs = sum(now.values()), sum(before.values())
    if not ours or not theirs:
        return None
    shifts = {model: now.get(model, 0) / ours - before.get(model, 0) / theirs for model in {**now, **before}}
    model = max(shifts, key=lambda name: (shifts[name], name))
    return ModelShift(model, shifts[model]) if shifts[model] > 0 else None
