"""Which model is strongest, and what asking only one model would cost. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout_app.engine.diagnosis.compare import MIN_CELL, Cells, Change, around

MIN_COVERED = 0.9  # share of the cost that must be known by model before anything is projected from it


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model of the policy. `success`: recorded on comparable tasks; `declared`: the catalogue's quality.

    `always`: relative change of cost if this model answered every task, with its interval.
    """

    alias: str
    success: Change | None = None
    declared: float | None = None
    always: Change | None = None


@dataclass(frozen=True, slots=True)
class RouteCost:
    """What the tasks cost that `chosen` was asked for and `final` answered: two models after an escalation."""

    chosen: str
    final: str
    cost: int


Prices = Mapping[str, tuple[int, int]]  # alias: nano-USD per million input and output tokens


def strongest(models: Sequence[ModelRecord]) -> ModelRecord | None:
    """The model with the best recorded quality; `models` in the policy's rank, weakest first.

    Recorded outcomes decide where they tell two models apart, then the catalogue's quality, then the rank. A
    price says nothing about strength.
    """
    best: ModelRecord | None = None
    for model in models:
        if best is None or not _is_stronger(best, model):
            best = model
    return best


def _is_stronger(one: ModelRecord, other: ModelRecord) -> bool:
    """Whether data say that `one` is better than `other`, which ranks above it."""
    if one.success and other.success:
        if one.success.low > other.success.high:
            return True
        if other.success.low > one.success.high:
            return False
    if one.declared is not None and other.declared is not None:
        return one.declared > other.declared
    return False


def cost_if_always(alias: str, routes: Iterable[RouteCost], prices: Prices) -> Change | None:
    """Relative change of cost if `alias` answered every task with the tokens that were used (tokens × price).

    How many of the tokens went in and how many came out is not reported, so the two ratios of list prices are
    the ends of the interval. None where prices are missing for more than a tenth of the cost.
    """
    known = low = high = 0.0
    whole = 0
    for route in routes:
        whole += route.cost
        ends = _ratios(alias, route.final, prices)
        share = _final_share(route, prices)
        if ends is None or share is None:
            continue
        known += route.cost
        low += route.cost * share[0] * ends[0]
        high += route.cost * share[1] * ends[1]
    if not whole or known < MIN_COVERED * whole:
        return None
    return Change((low + high) / 2 / known - 1, low / known - 1, high / known - 1)


def _ratios(one: str, other: str, prices: Prices) -> tuple[float, float] | None:
    """The lower and the higher of the two ratios of list prices, input and output."""
    if one == other:
        return 1.0, 1.0
    ours, theirs = prices.get(one), prices.get(other)
    if ours is None or theirs is None or not all(theirs):
        return None
    found = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
    return found[0], found[1]


def _final_share(route: RouteCost, prices: Prices) -> tuple[float, float] | None:
    """The part of the route's cost that the final model's own attempt makes: all of it without an escalation."""
    if route.chosen == route.final:
        return 1.0, 1.0
    ends = _ratios(route.chosen, route.final, prices)
    return None if ends is None else (1 / (1 + ends[1]), 1 / (1 + ends[0]))


def recorded_success(models: Mapping[str, Cells]) -> dict[str, Change]:
    """Success of each model at one mix, over the cells (endpoint and rule) that every listed model has tasks in.

    Empty unless two models share a cell: tasks that a rule picked for one model say nothing of another.
    """
    able = {
        alias: {c: s for c, s in cells.items() if s.graded >= MIN_CELL} for alias, cells in models.items()
    }
    able = {alias: cells for alias, cells in able.items() if cells}
    shared = set.intersection(*(set(cells) for cells in able.values())) if len(able) > 1 else set()
    weights = {cell: sum(cells[cell].graded for cells in able.values()) for cell in shared}
    whole = sum(weights.values())
    found = {}
    for alias, cells in able.items() if whole else ():
        rate = error = 0.0
        for cell, weight in weights.items():
            n, x = cells[cell].graded, cells[cell].successes
            p = (x + 0.5) / (n + 1)
            rate += weight / whole * x / n
            error += (weight / whole) ** 2 * p * (1 - p) / n
        found[alias] = around(rate, error)
    return found
