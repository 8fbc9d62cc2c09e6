"""The outcomes of one run. All tasks of a minute are drawn at once; the engine sees sums, as from routers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.simulated.population import Population
from benchmarks.simulated.scenario import (
    COST_NUSD,
    LATENCY_MS,
    LATENCY_SIGMA,
    RATES,
    Harm,
    Scenario,
)
from pointsman.reporting.histogram import Histogram
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import ArmSums, Differing, GradedCosts, Group, Late, MinuteRow, SliceSums
from rollout_app.engine.reference import Reference

Mask = NDArray[np.bool_]
STRONG_SHARE = 0.1  # cost of the weak model, relative to the strong one


@dataclass
class Tasks:
    """The tasks of one minute."""

    candidate: Mask
    differs: Mask
    endpoint: NDArray[np.int_]
    failed: Mask
    cell: NDArray[np.int_] | None


class Traffic:
    """`row(evaluation, share, stage)` returns an evaluation's data; `late` holds data that arrived after its window."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.rng: Generator = np.random.default_rng(seed)
        self.outage_at = int(self.rng.integers(20, 120)) if scenario.outage else -1_000
        self.population = Population(scenario, self.rng) if scenario.units else None
        self.endpoints = list(scenario.endpoints)
        self.first_succeeded = False
        self.late: dict[int, Late] = {}
        self.reference = self._calibrate()
        latency_top = 2 ** ((self.reference.latency_edge or 0) / 16 + 1 / 16)
        self.latency_z = math.log(latency_top / LATENCY_MS) / LATENCY_SIGMA
        self.cost_top = 2 ** ((self.reference.cost_edge or 0) / 16 + 1 / 16)
        self.quantiles = [2 ** (edge / 16 + 1 / 16) for edge in self.reference.cost_quantiles or ()]

    # --- one evaluation ------------------------------------------------------------------------------

    def row(self, evaluation: int, share: float, stage: int) -> MinuteRow:
        """Return both arms at `share` of the traffic."""
        scenario = self.scenario
        harm = scenario.harm if stage >= scenario.late_stage else scenario.unharmed
        tasks = self._tasks(evaluation, int(self.rng.poisson(self._volume(evaluation))), share, harm)
        minute = evaluation * scenario.step
        out = self._out(evaluation)
        ours, theirs = tasks.candidate, ~tasks.candidate
        candidate, c_diff, c_ends = self._arm(tasks, ours, harm, out, stage, arm="candidate")
        baseline, b_diff, b_ends = self._arm(tasks, theirs, scenario.unharmed, out, stage, arm="baseline")
        return MinuteRow(
            stage,
            minute,
            candidate,
            baseline,
            endpoints={name: (c_ends[name], b_ends[name]) for name in c_ends},
            candidate_differing=c_diff,
            baseline_differing=b_diff,
            candidate_cells=_cells(tasks, ours),
            baseline_cells=_cells(tasks, theirs),
        )

    def _tasks(self, evaluation: int, n: int, share: float, harm: Harm) -> Tasks:
        rng, scenario = self.rng, self.scenario
        base = 1 - self._success(evaluation)
        if self.population is not None:
            place, cell, p = self.population.draw(evaluation, n, base)
            candidate = place < share
        else:
            p = np.full(n, base)
            candidate, cell = rng.random(n) < share, None
        differs = rng.random(n) < scenario.differing if scenario.differing < 1 else np.ones(n, bool)
        endpoint = np.zeros(n, int)
        if self.endpoints:
            endpoint = rng.choice(len(self.endpoints), n, p=list(scenario.endpoints.values()))
        suffers = candidate & differs
        if scenario.hurt:
            suffers &= endpoint == self.endpoints.index(scenario.hurt)
        p = np.where(suffers, np.clip(p - harm.success / scenario.differing, 0, 1), p)
        failed = rng.random(n) < p
        if scenario.after_first:
            self._only_the_first(candidate, failed)
        return Tasks(candidate, differs, endpoint, failed, cell)

    def _only_the_first(self, candidate: Mask, failed: Mask) -> None:
        """Let the candidate's first task succeed and all later ones fail."""
        ours = np.flatnonzero(candidate)
        failed[ours] = True
        if len(ours) and not self.first_succeeded:
            failed[ours[0]] = False
            self.first_succeeded = True

    def _arm(
        self, tasks: Tasks, mask: Mask, harm: Harm, out: bool, stage: int, *, arm: str
    ) -> tuple[ArmSums, Differing | None, dict[str, SliceSums]]:
        scenario = self.scenario
        failed = tasks.failed[mask]
        n = len(failed)
        reported, graded, priced = self._known(failed, harm, stage, arm)
        spend, expensive = self._costs(n, tasks.differs[mask], harm)
        if harm.missing.unpriced:
            spend = np.where(~priced, spend * harm.missing.unpriced_factor, spend)
        if scenario.weak_first and arm == "baseline":
            escalations = 0
        else:
            escalations = int((expensive & reported).sum()) if harm.weak_first else -1
        capped = np.minimum(spend, self.reference.cost_cap_nusd or np.inf)
        seen = reported & priced
        both = seen & graded
        succeeded = ~failed & graded & reported
        done = int(reported.sum())
        counts = self._counts(done, escalations, out)
        over = [int((spend[seen] > top).sum()) for top in self.quantiles] or [0, 0, 0]
        sums = ArmSums(
            tasks=done,
            successes=int(succeeded.sum()),
            failures=int((failed & graded & reported).sum()),
            errors=counts["errors"],
            escalations=counts["escalations"],
            fallbacks=counts["fallbacks"],
            retries=counts["retries"],
            latency_n=done,
            latency_above=self._slow(done, int((expensive & reported).sum()), harm),
            cost_n=int(seen.sum()),
            cost_above=int((spend[seen] > self.cost_top).sum()),
            cost=int(capped[seen].sum()),
            cost_sq=float((capped[seen] ** 2).sum()),
            cost_on_success=int(capped[both & ~failed].sum()),
            cost_uncapped=int(spend[seen].sum()),
            costs=_graded_costs(both, failed, capped, spend),
            cost_over=(over[0], over[1], over[2]),
            decided=n if scenario.reports else None,
        )
        differing = self._differing(tasks.differs[mask], reported, graded, both, failed, capped, spend)
        return sums, differing, self._slices(tasks.endpoint[mask], reported, graded, failed)

    def _known(self, failed: Mask, harm: Harm, stage: int, arm: str) -> tuple[Mask, Mask, Mask]:
        """Return which tasks are reported in time, which of all have a grade, and which have a cost."""
        n, what, rng = len(failed), harm.missing, self.rng
        reported, graded, priced = np.ones(n, bool), np.ones(n, bool), np.ones(n, bool)
        both = self.scenario.missing
        late = np.where(failed, what.late_failures, what.late_successes)
        if self.scenario.delay:
            late = np.maximum(late, 0.05)
        if late.any():
            reported = rng.random(n) >= late
            self._note_late(stage, arm, int((~reported).sum()))
        if both.both_unfinished:
            reported &= rng.random(n) >= both.both_unfinished
        ungraded = np.where(failed, what.ungraded_failures, what.ungraded_successes)
        if ungraded.any():
            graded = rng.random(n) >= ungraded
        if both.both_ungraded:
            graded &= rng.random(n) >= both.both_ungraded
        if what.unpriced:
            priced = rng.random(n) >= what.unpriced
        return reported, graded, priced

    def _note_late(self, stage: int, arm: str, tasks: int) -> None:
        kept = self.late.get(stage, Late())
        more = (tasks, 0) if arm == "candidate" else (0, tasks)
        self.late[stage] = Late(kept.candidate + more[0], kept.baseline + more[1])

    def _costs(self, n: int, differs: Mask, harm: Harm) -> tuple[NDArray[np.float64], Mask]:
        """Return the cost of each task, and which were escalated (or cost far more)."""
        rng, scenario = self.rng, self.scenario
        spend = np.rint(rng.lognormal(math.log(COST_NUSD), scenario.sigma, n))
        chosen = np.zeros(n, bool)
        if harm.weak_first:
            chosen = rng.random(n) < harm.weak_first
            return np.where(chosen, spend * (1 + STRONG_SHARE), spend * STRONG_SHARE), chosen
        factor = 1 + (harm.cost - 1) / scenario.differing
        if factor != 1:
            spend = np.where(differs, spend * factor, spend)
        if harm.expensive:
            chosen = rng.random(n) < harm.expensive
            spend[chosen] *= harm.expensive_factor
        return spend, chosen if harm.weak_first else np.zeros(n, bool)

    def _counts(self, n: int, escalations: int, out: bool) -> dict[str, int]:
        rates = {**RATES, "errors": 0.6, "fallbacks": 0.3} if out else RATES
        counts = {name: int(self.rng.binomial(n, rate)) for name, rate in rates.items()}
        if escalations >= 0:
            counts["escalations"] = escalations
        return counts

    def _slow(self, n: int, escalated: int, harm: Harm) -> int:
        """Return the tasks above the threshold.

        An escalated task waits for the weak model (40 % of the time) and then for the strong one.
        """
        if harm.weak_first:
            twice = self._tail(1.4)
            once = self._tail(0.4)
            return int(self.rng.binomial(escalated, twice) + self.rng.binomial(n - escalated, once))
        return int(self.rng.binomial(n, self._tail(harm.latency)))

    def _tail(self, factor: float) -> float:
        return 0.5 * math.erfc((self.latency_z - math.log(factor) / LATENCY_SIGMA) / math.sqrt(2))

    def _differing(
        self, differs: Mask, reported: Mask, graded: Mask, both: Mask, failed: Mask, capped: NDArray[np.float64],
        spend: NDArray[np.float64],
    ) -> Differing | None:  # fmt: skip
        if not self.scenario.reports:
            return None
        if self.scenario.differing >= 1:
            n = int(reported.sum())
            return Differing(n, {"large>small": SliceSums(tasks=n)}, len(differs))
        it = differs & reported
        sums = SliceSums(
            int(it.sum()),
            int((it & graded & ~failed).sum()),
            int((it & graded & failed).sum()),
            _graded_costs(both & differs, failed, capped, spend),
        )
        return Differing(int(reported.sum()), {"large>small": sums}, int(differs.sum()))

    def _slices(
        self, endpoint: NDArray[np.int_], reported: Mask, graded: Mask, failed: Mask
    ) -> dict[str, SliceSums]:
        if not self.endpoints:
            return {}
        k = len(self.endpoints)
        tasks = np.bincount(endpoint[reported], minlength=k)
        good = np.bincount(endpoint[reported & graded & ~failed], minlength=k)
        bad = np.bincount(endpoint[reported & graded & failed], minlength=k)
        return {
            name: SliceSums(int(tasks[i]), int(good[i]), int(bad[i])) for i, name in enumerate(self.endpoints)
        }

    # --- levels --------------------------------------------------------------------------------------

    def _volume(self, evaluation: int) -> float:
        tasks = self.scenario.per_minute * self.scenario.step
        return tasks * (1 + 0.5 * math.sin(evaluation / 230)) if self.scenario.drift == "diurnal" else tasks

    def _success(self, evaluation: int) -> float:
        if self._out(evaluation):
            return 0.4
        if self.scenario.drift == "linear":
            return 0.95 - 0.06 * min(1.0, evaluation / 150)
        success = 1 - self.scenario.base_failures
        return success + 0.03 * math.cos(evaluation / 230) if self.scenario.drift == "diurnal" else success

    def _out(self, evaluation: int) -> bool:
        return self.outage_at <= evaluation < self.outage_at + 5

    # --- before --------------------------------------------------------------------------------------

    def _calibrate(self) -> Reference:
        rng, scenario = self.rng, self.scenario
        n = scenario.before
        failing = 1 - self._success(0) if scenario.failed_before is None else scenario.failed_before
        cells = None
        if self.population is not None:
            cells, failures = self.population.before(n, failing)
        else:
            failures = int(rng.binomial(n, failing))
        spend = np.rint(rng.lognormal(math.log(COST_NUSD), scenario.sigma, n))
        cost, latency = _histogram(spend), _histogram(rng.lognormal(math.log(LATENCY_MS), LATENCY_SIGMA, n))
        counts = {name: int(rng.binomial(n, rate)) for name, rate in RATES.items()}
        if scenario.weak_first:
            counts["escalations"] = 0
        failed = np.arange(n) < failures
        arm = ArmSums(
            tasks=n, successes=n - failures, failures=failures, errors=counts["errors"],
            escalations=counts["escalations"], fallbacks=counts["fallbacks"], retries=counts["retries"], cost_n=n,
            costs=_graded_costs(np.ones(n, bool), failed, spend, spend),
        )  # fmt: skip
        return calibrate(
            arm,
            latency=latency,
            cost=cost,
            unit_is_request=self.population is None,
            latency_tolerance_ms=scenario.tolerance_ms,
            mechanisms=("fallback", "retry") if scenario.weak_first else ("escalate", "fallback", "retry"),
            candidate_mechanisms=("escalate", "fallback", "retry"),
            cells=cells,
        )


def _graded_costs(
    both: Mask, failed: Mask, capped: NDArray[np.float64], spend: NDArray[np.float64]
) -> GradedCosts:
    good = both & ~failed
    kept = capped[both]
    return GradedCosts(
        int(both.sum()),
        int(good.sum()),
        int(kept.sum()),
        float((kept**2).sum()),
        int(capped[good].sum()),
        int(spend[both].sum()),
    )


def _cells(tasks: Tasks, mask: Mask) -> dict[int, Group]:
    if tasks.cell is None:
        return {}
    n = np.bincount(tasks.cell[mask], minlength=1)
    x = np.bincount(tasks.cell[mask], weights=tasks.failed[mask], minlength=1)
    used = np.flatnonzero(n)
    return {
        int(i): Group(k, f)
        for i, k, f in zip(used, n[used].tolist(), x[used].astype(int).tolist(), strict=True)
    }


def _histogram(values: NDArray[np.float64]) -> Histogram:
    buckets = np.ceil(np.log2(np.maximum(values, 1e-9)) * 16).astype(int) - 1
    keys, times = np.unique(buckets, return_counts=True)
    return Histogram(counts={int(key): int(count) for key, count in zip(keys, times, strict=True)})
