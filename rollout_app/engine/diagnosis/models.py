"""Which model is strongest, and what it would cost to use only one model. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rollout_app.engine.diagnosis.compare import MIN_CELL, Cells, Change, around

MIN_COVERED = 0.9  # share of the cost that must be attributable to a model before a projection is made


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model of the policy.

    success   its success rate on comparable recorded tasks
    declared  its quality in the catalogue
    always    the relative change of cost if this model answered every task, with an interval
    """

    alias: str
    success: Change | None = None
    declared: float | None = None
    always: Change | None = None


@dataclass(frozen=True, slots=True)
class RouteCost:
    """The cost of the tasks that `chosen` received first and `final` answered. They differ after an escalation."""

    chosen: str
    final: str
    cost: int


Prices = Mapping[str, tuple[int, int]]  # alias: nano-USD per million input and output tokens


def strongest(models: Sequence[ModelRecord]) -> ModelRecord | None:
    """Return the model with the best recorded quality. `models` are in the order of the policy, weakest first.

    If the recorded outcomes do not separate two models, the catalogue's quality decides, and then the order. Prices
    say nothing about strength.
    """
    best: ModelRecord | None = None
    for model in models:
        if best is None or not _is_stronger(best, model):
            best = model
    return best


def _is_stronger(one: ModelRecord, other: ModelRecord) -> bool:
    """Return whether the data show that `one` is better than `other`, which the policy ranks higher."""
    if one.success and other.success:
        if one.success.low > other.success.high:
            return True
        if other.success.low > one.success.high:
            return False
    if one.declared is not None and other.declared is not None:
        return one.declared > other.declared
    return False


def cost_if_always(alias: str, routes: Iterable[RouteCost], prices: Prices) -> Change | None:
    """Return the relative change of cost if `alias` answered every task with the same number of tokens.

    Routers do not report input and output tokens separately, so the ratios of the two list prices are the ends of the
    interval. Return None if prices are missing for more than a tenth of the cost.
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
    """Return the ratios of the input and of the output price of two models, the lower ratio first."""
    if one == other:
        return 1.0, 1.0
    ours, theirs = prices.get(one), prices.get(other)
    if ours is None or theirs is None or not all(theirs):
        return None
    found = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
    return found[0], found[1]


def _final_share(route: RouteCost, prices: Prices) -> tuple[float, float] | None:
    """Return the share of the route's cost caused by the final model's attempt: 1 without an escalation."""
    if route.chosen == route.final:
        return 1.0, 1.0
    ends = _ratios(route.chosen, route.final, prices)
    return None if ends is None else (1 / (1 + ends[1]), 1 / (1 + ends[0]))


def recorded_success(models: Mapping[str, Cells]) -> dict[str, Change]:
    """Return each model's success rate at one common mix of the cells (endpoint and rule) in which all have tasks.

    Empty unless at least two models share a cell: tasks that a rule sent to one model say nothing about another.
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
