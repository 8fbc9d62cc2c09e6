"""The data that the engine judges: plain values, no database. `evaluation` and `outcomes` fill them in.

Units: money in nano-US-dollars (integers, which add up exactly), shares in pcm (per 100,000), minutes as Unix minutes
(seconds // 60), rates and margins as fractions (0.02 = 2 points; for ratios 0.10 = 10 %).

What a router does not report is unknown. Each field says how it marks that (None, or counts of 0 tasks). Unknown is
never read as "none", "free" or "fine".
"""

from collections.abc import Iterable, Mapping
from dataclasses import field, fields
from datetime import datetime
from operator import add, attrgetter
from typing import Any, Literal, Self

from rollout_app.engine.states import State
from rollout_app.engine.values import value

SHARE_ALL = 100_000


@value(frozen=True, slots=True)
class GradedCosts:
    """Costs of the tasks whose cost and grade are both known; cost per success is computed over these.

    Each task's cost is capped at `Reference.cost_cap_nusd`, except in `uncapped_cost`. n = 0: no such task is known.
    """

    n: int = 0
    successes: int = 0
    cost: int = 0
    cost_sq: float = 0.0
    cost_on_success: int = 0
    uncapped_cost: int = 0

    def __add__(self, other: "GradedCosts") -> "GradedCosts":
        return GradedCosts(*map(add, _cost_figures(self), _cost_figures(other)))


_cost_figures = attrgetter(*(f.name for f in fields(GradedCosts)))
NO_COSTS = GradedCosts()


@value(frozen=True, slots=True)
class SliceSums:
    """One arm's sums over a slice of its tasks: an endpoint, or the differing tasks of one route pair."""

    tasks: int = 0
    successes: int = 0
    failures: int = 0  # all other tasks are ungraded
    costs: GradedCosts = NO_COSTS

    @property
    def graded(self) -> int:
        return self.successes + self.failures

    def __add__(self, other: "SliceSums") -> "SliceSums":
        return SliceSums(
            self.tasks + other.tasks,
            self.successes + other.successes,
            self.failures + other.failures,
            self.costs + other.costs,
        )


@value(frozen=True, slots=True)
class Differing:
    """The tasks of one arm that the two policies would treat differently, by route pair.

    `known_of`: tasks whose router reports whether they differ. A pair is the baseline's first choice `>` the
    candidate's, or `same` if only parameters or later attempts differ. `decided`: differing decisions; None: not
    reported.
    """

    known_of: int = 0
    pairs: Mapping[str, SliceSums] = field(default_factory=dict)
    decided: int | None = None


# Task counts with the same name in a minute's row and in `ArmSums`.
TASK_COUNTS = ("errors", "escalations", "fallbacks", "retries")


@value(frozen=True, slots=True)
class ArmSums:
    """One arm's sums over a period. Sums add up with `+`; all zeros is the neutral element.

    `tasks` were reported before their window closed. `decided`: decisions of the same minutes, reported or not; None
    if some of the arm's routers do not count them.
    """

    tasks: int = 0
    successes: int = 0
    failures: int = 0  # by the workload's success signal; tasks - successes - failures are ungraded
    errors: int = 0  # tasks with at least one error, and so on
    escalations: int = 0
    fallbacks: int = 0
    retries: int = 0
    latency_n: int = 0
    latency_above: int = 0  # tasks in histogram buckets above Reference.latency_edge
    cost_n: int = 0  # tasks for which the cost of every attempt is known; 0 is a known cost
    cost_above: int = 0  # like latency_above, for Reference.cost_edge
    # Cost of all attempts of a task, each task capped at Reference.cost_cap_nusd (uncapped if no cap is set).
    cost: int = 0
    cost_sq: float = 0.0
    cost_on_success: int = 0
    cost_uncapped: int = 0  # like `cost`, without a cap
    quality_n: int = 0
    quality: float = 0.0
    quality_sq: float = 0.0
    costs: GradedCosts = NO_COSTS  # of the tasks whose grade is also known
    cost_over: tuple[int, int, int] = (0, 0, 0)  # of cost_n, tasks above each of Reference.cost_quantiles
    decided: int | None = None

    def __add__(self, other: "ArmSums") -> "ArmSums":
        figures: list[Any] = list(map(add, _arm_figures(self), _arm_figures(other)))
        figures.append(tuple(map(add, self.cost_over, other.cost_over)))
        figures.append(_known_sum(self.decided, self.tasks, other.decided, other.tasks))
        return ArmSums(*figures)

    @property
    def graded(self) -> int:
        return self.successes + self.failures

    @property
    def health(self) -> tuple[int, ...]:
        """The task counts in the order of the fields: they show whether the provider works."""
        return (
            self.tasks,
            self.successes,
            self.failures,
            self.errors,
            self.escalations,
            self.fallbacks,
            self.retries,
        )

    @classmethod
    def from_health(cls, counts: Iterable[int]) -> Self:
        """Build from task counts in the order of `health`; costs and tails are unknown."""
        tasks, successes, failures, errors, escalations, fallbacks, retries = counts
        return cls(tasks, successes, failures, errors, escalations, fallbacks, retries)


def _known_sum(a: int | None, of_a: int, b: int | None, of_b: int) -> int | None:
    """Return a + b, or None if either is unknown, unless the unknown one covers no tasks."""
    if a is None:
        return None if of_a else b
    if b is None:
        return None if of_b else a
    return a + b


_NOT_ADDED = ("cost_over", "decided")  # these have rules of their own and come last
_arm_figures = attrgetter(*(f.name for f in fields(ArmSums) if f.name not in _NOT_ADDED))


@value(frozen=True, slots=True)
class Group:
    """One hash group of sticky units: one of the 32 of older routers, or of the 1,024 cells."""

    tasks: int
    failures: int


@value(frozen=True, slots=True)
class ShadowSums:
    """Reported decisions that were made but not enforced. Sums add up with `+`, without the routes.

    Routers of earlier releases do not report how many decisions they priced. Beside routers that do, theirs count as
    not priced, and their costs stay out: only a fleet without any counts is judged by its sums alone.
    """

    decisions: int = 0
    agreed: int = 0
    evaluation_errors: int = 0
    candidate_cost_nusd: int = 0  # projected, over the decisions for which it is known
    baseline_cost_nusd: int = 0
    # Decisions whose projected cost is known. None: not reported, and then a sum of 0 is unknown.
    candidate_priced: int | None = None
    baseline_priced: int | None = None
    candidate_whole: int | None = None  # candidate decisions whose cost includes the second stage
    candidate_routes: Mapping[str, int] = field(default_factory=dict)  # model: decisions
    baseline_routes: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, ...]:
        """The counts that the gate needs, in the order of the fields; the routes are for the report."""
        return (
            self.decisions,
            self.agreed,
            self.evaluation_errors,
            self.candidate_cost_nusd,
            self.baseline_cost_nusd,
        )

    @property
    def priced(self) -> tuple[int | None, int | None, int]:
        """Decisions of known cost: the candidate's, the baseline's, and the candidate's with its second stage."""
        return self.candidate_priced, self.baseline_priced, self.candidate_whole or 0

    @property
    def counts_priced(self) -> bool:
        return self.candidate_priced is not None or self.baseline_priced is not None

    def __add__(self, other: "ShadowSums") -> "ShadowSums":
        counting = [part for part in (self, other) if part.counts_priced]
        costs = counting or (self, other)
        return ShadowSums(
            self.decisions + other.decisions,
            self.agreed + other.agreed,
            self.evaluation_errors + other.evaluation_errors,
            sum(part.candidate_cost_nusd for part in costs),
            sum(part.baseline_cost_nusd for part in costs),
            _reported_sum(part.candidate_priced for part in counting),
            _reported_sum(part.baseline_priced for part in counting),
            (self.candidate_whole or 0) + (other.candidate_whole or 0),
        )


def _reported_sum(counts: Iterable[int | None]) -> int | None:
    """Return the sum of the counts that were reported, or None if none was."""
    reported = [count for count in counts if count is not None]
    return sum(reported) if reported else None


@value(frozen=True, slots=True)
class MirrorSums:
    """Tasks that both arms actually ran, by which of them succeeded."""

    n: int = 0
    both: int = 0
    only_candidate: int = 0
    only_baseline: int = 0
    neither: int = 0
    candidate_cost_nusd: int = 0
    baseline_cost_nusd: int = 0
    failed: int = 0  # gave no answer; included in `n` if the served task has a grade
    braked: int = 0  # not run, because routers had stopped mirrors that failed or hung

    @property
    def counts(self) -> tuple[int, ...]:
        return (
            self.n,
            self.both,
            self.only_candidate,
            self.only_baseline,
            self.neither,
            self.candidate_cost_nusd,
            self.baseline_cost_nusd,
            self.failed,
            self.braked,
        )


@value(frozen=True, slots=True)
class Rehearsed:
    """The shadow stage's counts over a period, without routes. They add up with `+`."""

    shadow: ShadowSums = ShadowSums()
    mirror: MirrorSums = MirrorSums()

    def __add__(self, other: "Rehearsed") -> "Rehearsed":
        return Rehearsed(
            self.shadow + other.shadow, MirrorSums(*map(add, self.mirror.counts, other.mirror.counts))
        )


Slices = Mapping[str, tuple[SliceSums, SliceSums]]  # by name: the candidate's sums and the baseline's


@value(frozen=True, slots=True)
class MinuteRow:
    """What has arrived for one minute of one stage. `minute` is the routers' stamp, not the arrival time."""

    stage: int
    minute: int
    candidate: ArmSums
    baseline: ArmSums
    groups: Mapping[int, Group] = field(default_factory=dict)  # of the baseline arm, for sticky units
    rehearsed: Rehearsed | None = None  # in the shadow stage
    endpoints: Slices = field(default_factory=dict)  # {}: not broken down
    # None: the arm's routers do not report which tasks differ.
    candidate_differing: Differing | None = None
    baseline_differing: Differing | None = None
    # Graded tasks and failures by hash cell, for sticky units; {}: not reported.
    candidate_cells: Mapping[int, Group] = field(default_factory=dict)
    baseline_cells: Mapping[int, Group] = field(default_factory=dict)


@value(frozen=True, slots=True)
class ClosedWindow:
    """Minutes of one stage at one share, over which both arms are compared (a stratum). Arms are compared only so."""

    stage: int
    first_minute: int
    last_minute: int
    candidate: ArmSums
    baseline: ArmSums
    groups: Mapping[int, Group] = field(default_factory=dict)
    endpoints: Slices = field(default_factory=dict)
    candidate_differing: Differing | None = None  # None: not known for every minute
    baseline_differing: Differing | None = None
    candidate_cells: Mapping[int, Group] = field(default_factory=dict)
    baseline_cells: Mapping[int, Group] = field(default_factory=dict)


@value(frozen=True, slots=True)
class Late:
    """What has arrived in one stage after its window closed. Grades are those of tasks that were on time."""

    candidate: int = 0  # tasks
    baseline: int = 0
    candidate_grades: int = 0
    baseline_grades: int = 0

    @property
    def figures(self) -> tuple[int, int, int, int]:
        return self.candidate, self.baseline, self.candidate_grades, self.baseline_grades


@value(frozen=True, slots=True)
class Stage:
    """One step of a plan, with the conditions for leaving or entering it."""

    mode: Literal["shadow", "percentage", "full"]
    share_pcm: int = 0
    min_minutes: float = 0
    min_tasks: int = 0  # candidate tasks judged in this stage; in shadow: decisions
    max_hours: float | None = None
    on_timeout: Literal["hold", "roll_back"] = "hold"
    approval: bool = False  # a person must approve entering this stage
    mirror_pcm: int = 0
    skippable: bool = False  # skipped if the evidence already allows a larger share
    tolerance: float = 1.0  # factor on the accepted harm when entering this stage; only for a first try

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{key: value for key, value in data.items() if key in _STAGE_FIELDS})

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STAGE_FIELDS}

    @property
    def harm_share(self) -> float:
        """The share (0 … 1) over which its harm is spread; the smaller, the more harm per task is tolerated."""
        share = self.share_pcm / SHARE_ALL if self.mode == "percentage" else 1.0
        return share / self.tolerance

    @property
    def label(self) -> str:
        """How people name it: "25 %", "shadow", "full"."""
        return f"{self.share_pcm * 100 / SHARE_ALL:g} %" if self.mode == "percentage" else self.mode

    @property
    def named(self) -> str:
        """The name within a sentence: "25 %", "the full stage"."""
        return self.label if self.mode == "percentage" else f"the {self.mode} stage"


_STAGE_FIELDS = tuple(f.name for f in fields(Stage))


@value(frozen=True, slots=True)
class RolloutView:
    """The facts about a rollout that the decision needs."""

    state: State
    stages: tuple[Stage, ...]
    stage: int
    stage_entered_at: datetime
    paused_seconds: float = 0.0  # in this stage; a pause stops the stage's clock
    next_stage_approved: bool = False
    freeze: str | None = None  # why nothing advances now, as a sentence

    @property
    def current(self) -> Stage:
        return self.stages[self.stage]

    @property
    def following(self) -> Stage | None:
        return self.stages[self.stage + 1] if self.stage + 1 < len(self.stages) else None


@value(frozen=True, slots=True)
class FleetView:
    """Routers that polled in the last two minutes, and how many of them applied the rollout's revision."""

    routers: int
    applied: int
    rejected: tuple[str, ...] = ()  # routers that rejected the candidate's document


@value(frozen=True, slots=True)
class Telemetry:
    """Whether harm would be visible if there were any."""

    candidate_decisions: int = 0  # in this rollout, older than the outcome lag
    candidate_outcomes: int = 0  # finished tasks of this rollout so far, graded or not
    newest_outcome_at: datetime | None = None  # arrival of this rollout's newest outcome, either arm
