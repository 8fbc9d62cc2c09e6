"""Simulated traffic for `benchmarks/guardrails.py`: what both arms of a workload report, by the minute."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import ArmSums, Group
from rollout_app.engine.reference import Reference
from rollout_app.engine.windows import merge_groups

SUCCESS = 0.92
RATES = {"errors": 0.01, "escalations": 0.12, "fallbacks": 0.01, "retries": 0.03}
COST_NUSD, COST_SIGMA = 400_000, 1.2
LATENCY_MS, LATENCY_SIGMA = 900, 0.6
PRE_ROLLOUT = 2_000
POOL, REQUESTS, CORRELATION = 1_200, 10, 0.3


@dataclass(frozen=True)
class Scenario:
    """What the candidate does to the traffic, and what happens to both arms alike."""

    name: str
    success: float = 0.0  # candidate's, added to the baseline's
    cost: float = 1.0  # candidate's cost, as a factor
    latency: float = 1.0
    late_stage: int = 0  # the harm sets in with this stage
    drift: str = ""  # "linear" 95 to 89 %, "diurnal" with volume
    users: bool = False  # ten requests a user, correlated
    outage: bool = False  # five minutes of the provider, both arms
    delay: int = 0  # minutes until an outcome is judged; 5 % come later still
    sigma: float = COST_SIGMA
    dear: float = 0.0  # the share of the candidate's tasks that cost eight times as much, taken at random
    per_minute: int = 200
    step: int = 1  # minutes a look
    looks: int = 450
    plan: str = "cautious"


_UNHARMED = Scenario("")


class Traffic:
    """One run's stream. `arms(t, share, stage)` gives the sums of one look."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.rng: Generator = np.random.default_rng(seed)
        self.outage_at = int(self.rng.integers(20, 120)) if scenario.outage else -1_000
        self.users = _Users(self.rng) if scenario.users else None
        self.groups: dict[int, Group] = {}
        self.reference = self._freeze()
        latency_top = 2 ** ((self.reference.latency_edge or 0) / 16 + 1 / 16)
        self.latency_z = math.log(latency_top / LATENCY_MS) / LATENCY_SIGMA
        self.cost_top = 2 ** ((self.reference.cost_edge or 0) / 16 + 1 / 16)

    def arms(self, look: int, share: float, stage: int) -> tuple[ArmSums, ArmSums]:
        """(candidate, baseline) of one look at `share` of the traffic."""
        scenario = self.scenario
        tasks = int(self.rng.poisson(self._volume(look)))
        harmed = stage >= scenario.late_stage
        shift = scenario.success if harmed else 0.0
        success = self._success(look)
        if self.users is not None:
            (nt, xt), (nc, xc), self.groups = self.users.draw(tasks, share, 1 - success, -shift)
        else:
            nt = int(self.rng.binomial(tasks, share))
            nc = tasks - nt
            xt = int(self.rng.binomial(nt, min(1.0, 1 - success - shift)))
            xc = int(self.rng.binomial(nc, 1 - success))
        kept = 1 - 0.05 * bool(scenario.delay)
        out = self._out(look)
        candidate = self._arm(nt, xt, kept, scenario if harmed else _UNHARMED, out)
        return candidate, self._arm(nc, xc, kept, _UNHARMED, out)

    def _arm(self, n: int, failures: int, kept: float, harm: Scenario, out: bool) -> ArmSums:
        rng, cap = self.rng, self.reference.cost_cap_nusd or 0
        if kept < 1:
            n, failures = (int(rng.binomial(k, kept)) for k in (n - failures, failures))
            n += failures
        drawn = rng.lognormal(math.log(COST_NUSD * harm.cost), self.scenario.sigma, n)
        spend = np.rint(drawn).astype(np.int64)
        if harm.dear:
            spend[rng.random(n) < harm.dear] *= 8
        capped = np.minimum(spend, cap)
        tail = 0.5 * math.erfc((self.latency_z - math.log(harm.latency) / LATENCY_SIGMA) / math.sqrt(2))
        rates = {**RATES, "errors": 0.6, "fallbacks": 0.3} if out else RATES
        counts = {name: int(rng.binomial(n, rate)) for name, rate in rates.items()}
        return ArmSums(
            tasks=n,
            successes=n - failures,
            failures=failures,
            **counts,
            latency_n=n,
            latency_above=int(rng.binomial(n, tail)),
            cost_n=n,
            cost_above=int((spend > self.cost_top).sum()),
            cost=int(capped.sum()),
            cost_sq=float((capped.astype(float) ** 2).sum()),
            cost_on_success=int(capped[failures:].sum()),
            cost_uncapped=int(spend.sum()),
        )

    def _volume(self, look: int) -> float:
        tasks = self.scenario.per_minute * self.scenario.step
        return tasks * (1 + 0.5 * math.sin(look / 230)) if self.scenario.drift == "diurnal" else tasks

    def _success(self, look: int) -> float:
        if self._out(look):
            return 0.4
        if self.scenario.drift == "linear":
            return 0.95 - 0.06 * min(1.0, look / 150)
        if self.scenario.drift == "diurnal":
            return SUCCESS + 0.03 * math.cos(look / 230)
        return SUCCESS

    def _out(self, look: int) -> bool:
        return self.outage_at <= look < self.outage_at + 5

    def _freeze(self) -> Reference:
        rng, n = self.rng, PRE_ROLLOUT
        groups: dict[int, Group] = {}
        failures = int(rng.binomial(n, 1 - self._success(0)))
        if self.users is not None:
            groups, failures = self.users.before(n, 1 - self._success(0))
        cost, latency = Histogram(), Histogram()
        for histogram, scale, sigma in (
            (cost, COST_NUSD, self.scenario.sigma),
            (latency, LATENCY_MS, LATENCY_SIGMA),
        ):
            buckets = np.ceil(np.log2(rng.lognormal(math.log(scale), sigma, n)) * 16).astype(int) - 1
            keys, times = np.unique(buckets, return_counts=True)
            histogram.counts = {int(key): int(count) for key, count in zip(keys, times, strict=True)}
        counts = {name: int(rng.binomial(n, rate)) for name, rate in RATES.items()}
        arm = ArmSums(tasks=n, successes=n - failures, failures=failures, **counts)
        arm += ArmSums(cost_n=n, cost=n * COST_NUSD)
        return calibrate(arm, latency=latency, cost=cost, groups=groups, unit_is_request=self.users is None)


Drawn = tuple[tuple[int, int], tuple[int, int], dict[int, Group]]


class _Users:
    """Users come, send ten requests each over about an hour, and go. A user keeps to one arm."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        self.left = rng.integers(1, REQUESTS + 1, POOL)
        self.place = rng.random(POOL)
        self.trouble = rng.random(POOL)  # the user's quantile of failing

    def draw(self, tasks: int, share: float, p: float, harm: float) -> Drawn:
        """(n, failures) of candidate and baseline, and the baseline's hash groups."""
        who, failed = self._requests(tasks, p)
        ours = self.place[who] < share
        failed |= ours & (self.rng.random(tasks) < harm / (1 - p))
        groups = self._groups(who[~ours], failed[~ours])
        self._leave(who)
        return (
            (int(ours.sum()), int(failed[ours].sum())),
            (int((~ours).sum()), int(failed[~ours].sum())),
            groups,
        )

    def before(self, tasks: int, p: float) -> tuple[dict[int, Group], int]:
        """Hash groups and failures of ten minutes before the rollout: one or two tasks a user."""
        groups: dict[int, Group] = {}
        for _ in range(tasks // 200):
            who, failed = self._requests(200, p)
            groups = merge_groups((groups, self._groups(who, failed)))
            self._leave(who)
        return groups, sum(group.failures for group in groups.values())

    def _groups(self, who: np.ndarray, failed: np.ndarray) -> dict[int, Group]:
        group = (self.place[who] * 100_000).astype(int) % 32
        n, x = np.bincount(group, minlength=32), np.bincount(group, weights=failed, minlength=32)
        return {i: Group(int(n[i]), int(x[i])) for i in range(32)}

    def _requests(self, tasks: int, p: float) -> tuple[np.ndarray, np.ndarray]:
        who = self.rng.integers(0, POOL, tasks)
        # A user fails always (with chance p) or as anybody does; the mix gives the correlation.
        always = self.trouble[who] < p
        stuck = self.rng.random(tasks) < math.sqrt(CORRELATION)
        return who, np.where(stuck, always, self.rng.random(tasks) < p)

    def _leave(self, who: np.ndarray) -> None:
        np.subtract.at(self.left, who, 1)
        gone = np.flatnonzero(self.left <= 0)
        self.left[gone] = REQUESTS
        self.place[gone], self.trouble[gone] = self.rng.random(len(gone)), self.rng.random(len(gone))
