"""Fair comparisons: what changed, with an interval, and what the mix of traffic alone explains. Pure.

Arms of a rollout are compared within the same minutes and at the same share (Mantel-Haenszel, as in the engine), so
that drift in both arms cancels out. Two periods are compared at one mix, the later period's. Otherwise a shift of
traffic from expensive endpoints to cheap ones would look like a saving although every endpoint became more expensive
(Simpson's paradox). Standardisation and its delta-method error: Kitagawa 1955; Keiding & Clayton, Standardization and
control for confounding, 2014. Intervals hold at every look (Howard et al. 2021).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rollout_app.engine.diagnosis.figures import OutcomeSums, total
from rollout_app.engine.stats import ratios
from rollout_app.engine.stats.mixture import bound_normal, rho_for
from rollout_app.engine.stats.rates import N_OPT, mantel_haenszel

ALPHA = 0.025  # for each side
UNEVEN = 0.05  # difference between the missing shares of the two sides above which they cannot be compared
MIN_CELL = 20  # a cell with fewer tasks in either period is not compared
Cells = Mapping[Any, OutcomeSums]  # by what is the same in both periods: the endpoint, or endpoint and rule
_V = 3.3  # relative variance of cost per success if unknown; affects sharpness, never validity


@dataclass(frozen=True, slots=True)
class Change:
    """A difference of shares (0.02 = 2 points) or a relative change (0.10 = 10 %), with its interval."""

    estimate: float
    low: float
    high: float

    @property
    def is_up(self) -> bool:
        return self.low > 0

    @property
    def is_down(self) -> bool:
        return self.high < 0

    def within(self, margin: float) -> bool:
        """Return whether the change is shown to be smaller than the margin in both directions."""
        return -margin < self.low and self.high < margin


@dataclass(frozen=True, slots=True)
class PeriodComparison:
    """One period or arm compared with another. None: unknown, for lack of tasks or because there was no cost before.

    `mix`: relative change of cost per success that the shift of traffic between endpoints explains alone; `raw`: the
    change that a plain division would show, equal to (1 + mix) (1 + behaviour) - 1 if all cells are compared.
    `covered`: share of today's tasks in cells that are compared. `ungraded`, `unpriced`: (now, before).
    `from_nothing`: all tasks cost 0 before and something now, so no ratio can express the increase.
    """

    failures: Change | None
    cost_per_success: Change | None
    cost_per_task: Change | None
    retries: Change | None
    ungraded: tuple[float, float]
    unpriced: tuple[float, float]
    tasks: tuple[int, int]
    concurrent: bool = False
    mix: float | None = None
    raw: float | None = None
    covered: float = 1.0
    from_nothing: bool = False

    @property
    def is_uneven(self) -> bool:
        """Whether one side lacks grades or costs for so many more of its tasks that costs cannot be compared."""
        return any(abs(self.excess(shares)) > UNEVEN for shares in (self.ungraded, self.unpriced))

    def excess(self, shares: tuple[float, float]) -> float:
        """Return by how much the missing share differs, beyond twice its standard error. Positive: more now."""
        now, before = shares
        n, m = self.tasks
        if not n or not m:
            return 0.0
        p = (now * n + before * m) / (n + m)
        error = 2 * math.sqrt(p * (1 - p) * (1 / n + 1 / m))
        difference = now - before
        return math.copysign(max(0.0, abs(difference) - error), difference)


# --- two arms in the same minutes ------------------------------------------------------------------------


def compare_arms(strata: Iterable[tuple[OutcomeSums, OutcomeSums]], deff: float = 1.0) -> PeriodComparison:
    """Compare candidate and baseline. Each pair must cover the same minutes of one stage, so that drift cancels."""
    pairs = [(now, before) for now, before in strata if now.tasks and before.tasks]
    ours, theirs = total(now for now, _ in pairs), total(before for _, before in pairs)
    return PeriodComparison(
        failures=_rates([(n.graded, n.failures, b.graded, b.failures) for n, b in pairs], deff),
        cost_per_success=_ratios([(n.success_moments, b.success_moments) for n, b in pairs], deff),
        cost_per_task=_ratios([(n.task_moments, b.task_moments) for n, b in pairs], deff),
        retries=_rates(
            [(n.tasks, min(n.retries, n.tasks), b.tasks, min(b.retries, b.tasks)) for n, b in pairs], deff
        ),
        ungraded=(ours.ungraded or 0.0, theirs.ungraded or 0.0),
        unpriced=(ours.unpriced or 0.0, theirs.unpriced or 0.0),
        tasks=(ours.tasks, theirs.tasks),
        concurrent=True,
        raw=_plain_change(ours, theirs),
        from_nothing=_from_nothing(ours, theirs),
    )


def _rates(strata: list[tuple[int, int, int, int]], deff: float) -> Change | None:
    """Return the Mantel-Haenszel difference. Variance: Greenland & Robins 1985, slightly pooled so that it is
    never 0.
    """
    numerator, weight = mantel_haenszel(strata)
    if not weight:
        return None
    n, x = sum(s[0] + s[2] for s in strata), sum(s[1] + s[3] for s in strata)
    p = (x + 0.5) / (n + 1)
    spread = p * (1 - p)
    return around(numerator / weight, deff * spread / weight, N_OPT / spread)


def _ratios(strata: list[tuple[ratios.Moments, ratios.Moments]], deff: float) -> Change | None:
    ours, theirs = (ratios.added(pair[side] for pair in strata) for side in (0, 1))
    contrast = ratios.contrasts(strata)
    if not ratios.enough(ours, theirs):
        return None
    if ours.y == 0 and theirs.y > 0 and ours.d > 0:
        return Change(-1.0, -1.0, -1.0)  # it is free now
    errors = ratios.squared_errors(contrast, ours, theirs, deff)
    if contrast.ratio is None:
        return None
    # Constant costs have no variance, so the ratio is known exactly.
    return _relative(math.log(contrast.ratio), errors[1] if errors else 0.0, theirs.relative_variance or _V)


# --- two periods, at one mix -----------------------------------------------------------------------------


def compare_periods(now: Cells, before: Cells, deff: float = 1.0) -> PeriodComparison:
    """Compare the later period with the earlier one, both at the later one's mix of cells (endpoints, or routes)."""
    ours, theirs = total(now.values()), total(before.values())
    shared = compared_cells(now, before)
    at_our_mix = _cost_per_success([(n, b) for n, b in shared if n.both_n and b.both_n])
    behaviour = _standardised(shared, ("both_n", "success_moments"), deff)
    plain = _plain_change(ours, theirs)
    return PeriodComparison(
        failures=_standardised_rate(shared, lambda s: (s.graded, s.failures), deff),
        cost_per_success=behaviour,
        cost_per_task=_standardised(shared, ("cost_n", "task_moments"), deff),
        retries=_standardised_rate(shared, lambda s: (s.tasks, min(s.retries, s.tasks)), deff),
        ungraded=(ours.ungraded or 0.0, theirs.ungraded or 0.0),
        unpriced=(ours.unpriced or 0.0, theirs.unpriced or 0.0),
        tasks=(ours.tasks, theirs.tasks),
        mix=_mix_effect(at_our_mix, theirs.cost_per_success),
        raw=plain,
        from_nothing=_from_nothing(ours, theirs),
        covered=sum(n.tasks for n, _ in shared) / ours.tasks if ours.tasks else 0.0,
    )


def compared_cells(now: Cells, before: Cells) -> list[tuple[OutcomeSums, OutcomeSums]]:
    """Return (now, before) of the cells that have enough tasks in both periods to be compared."""
    cells = [(now[key], before[key]) for key in now if key in before]
    return [(n, b) for n, b in cells if min(n.tasks, b.tasks) >= MIN_CELL]


def _cost_per_success(cells: list[tuple[OutcomeSums, OutcomeSums]]) -> float | None:
    """Return the earlier cost per success at today's mix."""
    cost = sum(n.both_n * b.both_cost / b.both_n for n, b in cells)
    successes = sum(n.both_n * b.both_successes / b.both_n for n, b in cells)
    return cost / successes if successes else None


def _mix_effect(at_our_mix: float | None, before: float | None) -> float | None:
    return at_our_mix / before - 1 if at_our_mix is not None and before else None


def _plain_change(now: OutcomeSums, before: OutcomeSums) -> float | None:
    ours, theirs = now.cost_per_success, before.cost_per_success
    return ours / theirs - 1 if ours is not None and theirs else None


def _from_nothing(now: OutcomeSums, before: OutcomeSums) -> bool:
    """Return whether tasks have a cost now that were free before. A few paid ones do not tell.

    The mean cost must be three standard errors above zero: about ten paid tasks. Without squares any cost counts.
    """
    if not (before.cost_n >= ratios.N_MIN and before.cost == 0 and now.cost > 0):
        return False
    return now.cost * now.cost > 9 * now.cost_sq


def _standardised(
    cells: list[tuple[OutcomeSums, OutcomeSums]], figure: tuple[str, str], deff: float
) -> Change | None:
    """Return the relative change of y per d at today's mix. None below `N_MIN` tasks, or without cost or
    success before.
    """
    count, moments = figure
    weighted = [
        (getattr(n, count), getattr(n, moments), getattr(b, moments))
        for n, b in cells
        if getattr(n, count) and getattr(b, count)
    ]
    if min(sum(w[1].n for w in weighted), sum(w[2].n for w in weighted)) < ratios.N_MIN:
        return None
    ours = _log_ratio([(weight, mine) for weight, mine, _ in weighted])
    theirs = _log_ratio([(weight, other) for weight, _, other in weighted])
    if theirs is None:
        return None
    if ours is None:
        free = sum(mine.d for _, mine, _ in weighted) > 0
        return Change(-1.0, -1.0, -1.0) if free else None
    return _relative(ours[0] - theirs[0], deff * (ours[1] + theirs[1]), _V)


def _log_ratio(cells: list[tuple[int, ratios.Moments]]) -> tuple[float, float] | None:
    """Return (ln of Σ w·mean y / Σ w·mean d, its variance by the delta method); None without y or d."""
    y = sum(weight * m.y / m.n for weight, m in cells)
    d = sum(weight * m.d / m.n for weight, m in cells)
    if y <= 0 or d <= 0:
        return None
    variance = 0.0
    for weight, m in cells:
        my, md = m.y / m.n, m.d / m.n
        var_y, var_d, cov = m.yy / m.n - my * my, m.dd / m.n - md * md, m.yd / m.n - my * md
        spread = max(0.0, var_y / (y * y) - 2 * cov / (y * d) + var_d / (d * d))
        variance += weight * weight * spread / max(1, m.n - 1)
    return math.log(y / d), variance


def _standardised_rate(
    cells: list[tuple[OutcomeSums, OutcomeSums]],
    counts: Callable[[OutcomeSums], tuple[int, int]],
    deff: float,
) -> Change | None:
    """Return the difference of x / n at today's mix; None if no cell has tasks in both periods."""
    pairs = [(counts(n), counts(b)) for n, b in cells]
    pairs = [(ours, theirs) for ours, theirs in pairs if ours[0] and theirs[0]]
    whole = sum(ours[0] for ours, _ in pairs)
    if not whole:
        return None
    difference = variance = 0.0
    for (n, x), (m, z) in pairs:
        share = n / whole
        difference += share * (x / n - z / m)
        variance += share * share * sum(_spread(*arm) / arm[0] for arm in ((n, x), (m, z)))
    return around(difference, deff * variance, N_OPT / _spread(whole, sum(x for (_, x), _ in pairs)))


def _spread(n: int, x: int) -> float:
    """Return p(1 - p) with half a bad task added, so that zero failures do not count as certainty."""
    p = (x + 0.5) / (n + 1)
    return p * (1 - p)


# --- intervals -------------------------------------------------------------------------------------------


def around(estimate: float, squared_error: float, v: float = 4 * N_OPT) -> Change:
    """Return the estimate with its interval; `v` is the inverse squared error at which the interval is tightest."""
    if squared_error <= 0:
        return Change(estimate, estimate, estimate)
    half = bound_normal(1 / squared_error, ALPHA, rho_for(v, ALPHA)) * squared_error
    return Change(estimate, estimate - half, estimate + half)


def _relative(log_ratio: float, squared_error: float, v_ref: float) -> Change:
    """Convert a log ratio to a relative change, clamped so that nothing overflows."""
    change = around(log_ratio, squared_error, N_OPT / max(v_ref, 1e-9))
    return Change(*(math.expm1(min(x, 700.0)) for x in (change.estimate, change.low, change.high)))
