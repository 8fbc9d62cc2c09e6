"""Small streams of traffic, drawn with `random.Random` only: the same on every machine, with every optional figure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random

from pointsman.reporting.histogram import Histogram, index
from rollout_app.engine.calibration import calibrate
from rollout_app.engine.evidence import (
    ArmSums,
    Differing,
    GradedCosts,
    Group,
    Late,
    MinuteRow,
    MirrorSums,
    Rehearsed,
    ShadowSums,
    SliceSums,
    Stage,
)
from rollout_app.engine.reference import Reference

SHARES = (20_000, 40_000, 60_000)
STAGES = (
    Stage("shadow", min_minutes=2, min_tasks=40, mirror_pcm=10_000),
    *(
        Stage("percentage", share, min_minutes=3, min_tasks=60, max_hours=2, skippable=True)
        for share in SHARES
    ),
    Stage("full", share_pcm=100_000, tolerance=1.5, approval=True),
)
ENDPOINTS = {"/chat": 0.5, "/search": 0.3, "/mail": 0.15, "/admin": 0.05}
PAIRS = ("large>small", "large>medium", "same")
FIRST = 29_500_000  # a Unix minute


@dataclass(frozen=True, eq=False)
class Stream:
    """Parameters of a stream. Rates ending in `_t` are those of the candidate; the others apply to both arms."""

    name: str
    seed: int = 1
    tasks: int = 70  # per minute
    minutes: int = 24  # a third of them in each percentage stage
    fail: float = 0.10
    fail_t: float = 0.10
    cost: int = 4_000
    cost_t: float = 1.0  # factor
    tail: float = 0.06  # tasks that cost ten times as much
    slow_t: float = 0.05
    error_t: float = 0.02
    quality_t: float = 0.80
    differing: float = 0.6
    ungraded: float = 0.03
    ungraded_failures_t: float = 0.03
    unpriced: float = 0.02
    unpriced_t: float = 0.02
    unreported_t: float = 0.0
    late_t: float = 0.0
    # Factor on the rates of errors, escalations, fallbacks, retries, slow tasks of both arms.
    calm: float = 1.0
    sets_in: int = 1  # the stage in which the candidate's harm starts
    share_t: float = 1.0  # factor on the share of the plan
    differing_t: float = 1.0  # factor on the share of differing tasks
    hurt: str = ""  # the endpoint with all of the candidate's harm
    units: int = 0  # sticky ones
    tells: bool = True  # routers send decisions, differing tasks, graded costs and cells
    rehearses: int = 0  # minutes in shadow first
    mechanisms: tuple[str, ...] | None = ("escalate", "fallback", "retry")
    bounds: Mapping[str, float] = field(default_factory=dict)  # by metric: guardrails that also have a bound


@dataclass
class Arm:
    """The tasks of one arm in one minute."""

    counts: Counter[str] = field(default_factory=Counter)
    costs: list[int] = field(default_factory=list)
    graded_costs: list[tuple[int, bool]] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    slices: dict[str, list[tuple[bool | None, int | None]]] = field(default_factory=dict)
    pairs: dict[str, list[tuple[bool | None, int | None]]] = field(default_factory=dict)
    cells: dict[int, list[bool]] = field(default_factory=dict)


class Traffic:
    """The rows of one stream. `late`: what has arrived late so far, by stage."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.random = stream, Random(stream.seed)
        self.late: dict[int, Late] = {}
        self.rates = [stream.fail * (3 if unit % 5 == 0 else 0.5) for unit in range(stream.units)]
        self.reference = self._calibrated()

    def rows(self) -> Iterator[MinuteRow]:
        stream = self.stream
        for minute in range(stream.rehearses):
            yield self._rehearsed(FIRST + minute)
        for minute in range(stream.minutes):
            stage = 1 + 3 * minute // stream.minutes
            yield self._row(stage, FIRST + stream.rehearses + minute)

    def _row(self, stage: int, minute: int) -> MinuteRow:
        stream, arms = self.stream, (Arm(), Arm())
        for _ in range(stream.tasks + self.random.randrange(9)):
            self._task(arms, stage)
        candidate, baseline = (self._sums(arm) for arm in arms)
        slices = {
            name: (_slice(arms[0].slices.get(name, [])), _slice(arms[1].slices.get(name, [])))
            for name in ENDPOINTS
        }
        cells = [
            {cell: Group(len(failed), sum(failed)) for cell, failed in sorted(arm.cells.items())}
            for arm in arms
        ]
        groups = Counter[int]()
        failures = Counter[int]()
        for cell, group in cells[1].items():
            groups[cell % 32] += group.tasks
            failures[cell % 32] += group.failures
        told = stream.tells
        return MinuteRow(
            stage, minute, candidate, baseline,
            groups={key: Group(n, failures[key]) for key, n in sorted(groups.items())},
            endpoints=slices if told else {},
            candidate_differing=self._differing(arms[0]) if told else None,
            baseline_differing=self._differing(arms[1]) if told else None,
            candidate_cells=cells[0] if told else {},
            baseline_cells=cells[1] if told else {},
        )  # fmt: skip

    def _task(self, arms: tuple[Arm, Arm], stage: int) -> None:
        stream, random = self.stream, self.random
        unit = int(stream.units * random.random() ** 2) if stream.units else None
        place = random.random() if unit is None else (unit * 37 % 100 + 0.5) / 100
        ours = place < SHARES[stage - 1] / 100_000 * stream.share_t
        arm = arms[0] if ours else arms[1]
        endpoint = random.choices(list(ENDPOINTS), list(ENDPOINTS.values()))[0]
        pair = (
            random.choice(PAIRS)
            if random.random() < stream.differing * (stream.differing_t if ours else 1)
            else None
        )
        harmed = ours and stage >= stream.sets_in
        worse = harmed and (not stream.hurt or endpoint == stream.hurt)
        p = stream.fail if unit is None else self.rates[unit]
        if worse:
            p += stream.fail_t - stream.fail
        failed = random.random() < p
        arm.counts["decided"] += 1
        arm.counts["decided differing"] += pair is not None
        if ours and self._lost(stage, failed):
            return
        missing = stream.ungraded_failures_t if ours and failed else stream.ungraded
        grade = None if random.random() < missing else not failed
        unpriced = random.random() < (stream.unpriced_t if ours else stream.unpriced)
        cost = None if unpriced else self._cost(harmed)
        self._count(arm, harmed, grade, cost)
        arm.slices.setdefault(endpoint, []).append((grade, cost))
        if pair:
            arm.pairs.setdefault(pair, []).append((grade, cost))
        if unit is not None and grade is not None:
            arm.cells.setdefault(unit * 11 % 1024, []).append(not grade)

    def _lost(self, stage: int, failed: bool) -> bool:
        """Return whether the task is never reported, or too late."""
        if self.random.random() < self.stream.unreported_t:
            return True
        if self.random.random() >= self.stream.late_t:
            return False
        kept = self.late.get(stage, Late())
        self.late[stage] = Late(kept.candidate + 1, kept.baseline, kept.candidate_grades + failed, 0)
        return True

    def _cost(self, ours: bool) -> int:
        random, stream = self.random, self.stream
        cost = stream.cost * (0.5 + random.random()) * (10 if random.random() < stream.tail else 1)
        return round(cost * (stream.cost_t if ours else 1))

    def _count(self, arm: Arm, ours: bool, grade: bool | None, cost: int | None) -> None:
        random, stream, counts = self.random, self.stream, arm.counts
        counts["tasks"] += 1
        for name, rate in (
            ("errors", stream.error_t if ours else 0.02), ("escalations", 0.1), ("fallbacks", 0.02),
            ("retries", 0.05), ("slow", stream.slow_t if ours else 0.05),
        ):  # fmt: skip
            counts[name] += random.random() < rate * stream.calm
        if grade is not None:
            counts["good" if grade else "bad"] += 1
            arm.scores.append(round((stream.quality_t if ours else 0.8) + 0.2 * random.random() - 0.1, 3))
        if cost is not None:
            arm.costs.append(cost)
            if grade is not None:
                arm.graded_costs.append((cost, grade))

    def _sums(self, arm: Arm) -> ArmSums:
        counts, told = arm.counts, self.stream.tells
        cap = self.reference.cost_cap_nusd or 10**12
        capped = [min(cost, cap) for cost in arm.costs]
        over = [
            sum((index(cost) or 0) > edge for cost in arm.costs)
            for edge in self.reference.cost_quantiles or ()
        ]
        return ArmSums(
            tasks=counts["tasks"], successes=counts["good"], failures=counts["bad"], errors=counts["errors"],
            escalations=counts["escalations"], fallbacks=counts["fallbacks"], retries=counts["retries"],
            latency_n=counts["tasks"], latency_above=counts["slow"], cost_n=len(arm.costs),
            cost_above=sum(cost > 8 * cap for cost in arm.costs), cost=sum(capped),
            cost_sq=float(sum(cost * cost for cost in capped)), cost_uncapped=sum(arm.costs),
            quality_n=len(arm.scores), quality=sum(arm.scores), quality_sq=sum(s * s for s in arm.scores),
            costs=_graded(arm.graded_costs, cap) if told else GradedCosts(),
            cost_over=(over[0], over[1], over[2]) if over and told else (0, 0, 0),
            decided=counts["decided"] if told else None,
        )  # fmt: skip

    def _differing(self, arm: Arm) -> Differing:
        pairs = {name: _slice(tasks) for name, tasks in sorted(arm.pairs.items())}
        return Differing(arm.counts["tasks"], pairs, arm.counts["decided differing"])

    def _rehearsed(self, minute: int) -> MinuteRow:
        random = self.random
        n = 30 + random.randrange(10)
        shadow = ShadowSums(
            n, n - random.randrange(5), 0, 900 * n, 1_000 * n, n, n, n // 2,
            candidate_routes={"small": n // 2, "large": n - n // 2}, baseline_routes={"large": n},
        )  # fmt: skip
        mirror = MirrorSums(12, 9, 1, random.randrange(2), 1, 9_000, 10_000, 1, 2)
        arm = ArmSums(tasks=n, successes=n - 3, failures=3, errors=1, retries=2)
        return MinuteRow(0, minute, ArmSums(), arm, rehearsed=Rehearsed(shadow, mirror))

    def _calibrated(self) -> Reference:
        stream, random = self.stream, self.random
        cells: dict[int, list[int]] = {}
        failures = 0
        for at in range(4_000):
            unit = int(stream.units * random.random() ** 2) if stream.units else None
            failed = random.random() < (stream.fail if unit is None else self.rates[unit])
            failures += failed
            if unit is not None:
                counts = cells.setdefault(unit * 11 % 1024, [0, 0, 0, 0])
                counts[2 * (at % 2)] += 1
                counts[2 * (at % 2) + 1] += failed
        costs = [self._cost(ours=False) for _ in range(1_000)]
        good = 4_000 - failures
        arm = ArmSums(
            tasks=4_000, successes=good, failures=failures, errors=80, escalations=400, fallbacks=80, retries=200,
            quality_n=4_000, quality=3_200.0, quality_sq=2_574.0, cost_n=4_000,
            costs=GradedCosts(4_000, good, 4 * sum(costs), 0.0, 0, 4 * sum(costs)),
        )  # fmt: skip
        latency = [200 + 40 * random.random() ** 3 * at for at in range(200)]
        return calibrate(
            arm,
            latency=_histogram(latency),
            cost=_histogram([cost for cost in costs if cost]),
            groups={key: Group(100 + key, 8 + key % 9) for key in range(32)},
            unit_is_request=not stream.units,
            mechanisms=stream.mechanisms,
            candidate_mechanisms=("escalate",),
            cells={cell: (a, b, c, d) for cell, (a, b, c, d) in cells.items()},
        )


def _slice(tasks: list[tuple[bool | None, int | None]]) -> SliceSums:
    known = [(cost, grade) for grade, cost in tasks if grade is not None and cost is not None]
    grades = [grade for grade, _ in tasks if grade is not None]
    return SliceSums(len(tasks), sum(grades), len(grades) - sum(grades), _graded(known, 10**12))


def _graded(known: list[tuple[int, bool]], cap: int) -> GradedCosts:
    return GradedCosts(
        len(known),
        sum(good for _, good in known),
        sum(min(cost, cap) for cost, _ in known),
        float(sum(min(cost, cap) ** 2 for cost, _ in known)),
        sum(min(cost, cap) for cost, good in known if good),
        sum(cost for cost, _ in known),
    )


def _histogram(values: list[float] | list[int]) -> Histogram:
    return Histogram(counts=dict(Counter(index(value) or 0 for value in values)))
