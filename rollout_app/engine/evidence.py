"""What the decision looks at: plain data, no database. Whoever reads the database fills these in.

Units: money in nano-US-dollars (integers, they sum exactly), shares in pcm (per 100,000), minutes as Unix
minutes (seconds // 60), rates and margins as fractions (0.02 = 2 points; for ratios 0.10 = 10 %).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from operator import add, attrgetter
from typing import Any, Literal, Self

from rollout_app.engine.states import State

SHARE_ALL = 100_000


@dataclass(frozen=True, slots=True)
class ArmSums:
    """One arm's sums over some time. Sums add up with `+`; all zero is the neutral element."""

    tasks: int = 0
    successes: int = 0
    failures: int = 0  # by the workload's success signal; tasks - successes - failures are ungraded
    errors: int = 0  # tasks with at least one error, and so on
    escalations: int = 0
    fallbacks: int = 0
    retries: int = 0
    latency_n: int = 0
    latency_above: int = 0  # tasks in histogram buckets above Reference.latency_edge
    cost_n: int = 0
    cost_above: int = 0  # the same for Reference.cost_edge
    # Cost of all attempts of a task, each task capped at Reference.cost_cap_nusd (uncapped where no cap is
    # set).
    cost: int = 0
    cost_sq: float = 0.0
    cost_on_success: int = 0
    cost_whole: int = 0  # the same as `cost`, no task capped
    quality_n: int = 0
    quality: float = 0.0
    quality_sq: float = 0.0

    def __add__(self, other: "ArmSums") -> "ArmSums":
        return ArmSums(*map(add, _arm_figures(self), _arm_figures(other)))

    @property
    def health(self) -> tuple[int, ...]:
        """The counts of tasks, in the order of the fields: what tells whether the provider is well."""
        return (
            self.tasks,
            self.successes,
            self.failures,
            self.errors,
            self.escalations,
            self.fallbacks,
            self.retries,
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


_arm_figures = attrgetter(*(f.name for f in fields(ArmSums)))


@dataclass(frozen=True, slots=True)
class Group:
    """One of the 32 hash groups of sticky units."""

    tasks: int
    failures: int


@dataclass(frozen=True, slots=True)
class ShadowSums:
    """What the routers report of decisions that were made and not enforced."""

    decisions: int = 0
    agreed: int = 0
    evaluation_errors: int = 0
    candidate_cost_nusd: int = 0  # projected, over these decisions
    baseline_cost_nusd: int = 0
    candidate_routes: Mapping[str, int] = field(default_factory=dict)  # model: decisions
    baseline_routes: Mapping[str, int] = field(default_factory=dict)

    @property
    def counts(self) -> tuple[int, ...]:
        """What the gate asks for, in the order of the fields; the routes are for the report."""
        return (
            self.decisions,
            self.agreed,
            self.evaluation_errors,
            self.candidate_cost_nusd,
            self.baseline_cost_nusd,
        )


@dataclass(frozen=True, slots=True)
class MirrorSums:
    """Tasks that both arms really ran, by which of them succeeded."""

    n: int = 0
    both: int = 0
    only_candidate: int = 0
    only_baseline: int = 0
    neither: int = 0
    candidate_cost_nusd: int = 0
    baseline_cost_nusd: int = 0

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
        )


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The shadow stage's counts over some time, without routes. They add up with `+`."""

    shadow: ShadowSums = ShadowSums()
    mirror: MirrorSums = MirrorSums()

    def __add__(self, other: "Rehearsed") -> "Rehearsed":
        return Rehearsed(
            ShadowSums(*map(add, self.shadow.counts, other.shadow.counts)),
            MirrorSums(*map(add, self.mirror.counts, other.mirror.counts)),
        )


@dataclass(frozen=True, slots=True)
class MinuteRow:
    """What has arrived for one minute of one stage. `minute` is the routers' stamp, not the arrival."""

    stage: int
    minute: int
    candidate: ArmSums
    baseline: ArmSums
    groups: Mapping[int, Group] = field(default_factory=dict)  # of the baseline arm, where units are sticky
    rehearsed: Rehearsed | None = None  # in the shadow stage


@dataclass(frozen=True, slots=True)
class Stratum:
    """A closed window: both arms over the same minutes, at one share. Only such are ever compared."""

    stage: int
    first_minute: int
    last_minute: int
    candidate: ArmSums
    baseline: ArmSums
    groups: Mapping[int, Group] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        arms = {arm: ArmSums.from_dict(data[arm]) for arm in ("candidate", "baseline")}
        groups = {int(key): Group(**group) for key, group in data.get("groups", {}).items()}
        return cls(**{**data, **arms, "groups": groups})


@dataclass(frozen=True, slots=True)
class Reference:
    """The baseline before the rollout, frozen at its start: what margins and tails are measured from."""

    outcomes: int  # graded tasks it rests on
    rates: Mapping[str, float] = field(default_factory=dict)  # p_ref per rate guardrail's metric
    cost_v: float | None = None  # v_ref: relative variance per task of cost per success
    cost_per_success: float | None = None  # nUSD
    quality_v: float | None = None
    mean_quality: float | None = None
    deff: float = 1.0  # design effect of sticky units on outcomes
    unit_spread: float = 0.0  # sum of squared traffic shares of the units; 0 when every request is a unit
    latency_edge: int | None = None  # histogram bucket index; a tail task lies in a higher bucket
    cost_edge: int | None = None
    cost_cap_nusd: int | None = None
    # (true factor on every task's cost, what it comes to once costs are capped), ascending: `stats.capped`
    cost_curve: tuple[tuple[float, float], ...] = ()
    cost_kept: float = 1.0  # the share of the cost that is left once each task is capped
    cost_whole_v: float | None = None  # as cost_v, before any cap

    @property
    def tail_noise(self) -> float:
        """How many times the variance of capped costs that of whole costs is; at least 1."""
        return max(1.0, self.cost_whole_v / self.cost_v) if self.cost_v and self.cost_whole_v else 1.0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _REFERENCE_FIELDS} | {"rates": dict(self.rates)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        curve = tuple((float(true), float(seen)) for true, seen in data.get("cost_curve", ()))
        return cls(**{**data, "cost_curve": curve})


_REFERENCE_FIELDS = tuple(f.name for f in fields(Reference))


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of a plan, with what it must show before the next."""

    mode: Literal["shadow", "percentage", "full"]
    share_pcm: int = 0
    min_minutes: float = 0
    min_tasks: int = 0  # candidate tasks judged in this stage; in shadow: decisions
    max_hours: float | None = None
    on_timeout: Literal["hold", "roll_back"] = "hold"
    approval: bool = False  # entering this stage asks for a person's yes
    mirror_pcm: int = 0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{key: value for key, value in data.items() if key in _STAGE_FIELDS})

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STAGE_FIELDS}

    @property
    def label(self) -> str:
        """What people call it: "25 %", "shadow", "full"."""
        return f"{self.share_pcm * 100 / SHARE_ALL:g} %" if self.mode == "percentage" else self.mode

    @property
    def named(self) -> str:
        """The same in a sentence: "25 %", "the full stage"."""
        return self.label if self.mode == "percentage" else f"the {self.mode} stage"


_STAGE_FIELDS = tuple(f.name for f in fields(Stage))


@dataclass(frozen=True, slots=True)
class RolloutView:
    """The rollout as the decision sees it."""

    state: State
    stages: tuple[Stage, ...]
    stage: int
    stage_entered_at: datetime
    paused_seconds: float = 0.0  # in this stage: a pause stops the stage's clock
    next_stage_approved: bool = False
    freeze: str | None = None  # what freezes it and until when, e.g. "the freeze 'year end' until 2 January"

    @property
    def current(self) -> Stage:
        return self.stages[self.stage]

    @property
    def following(self) -> Stage | None:
        return self.stages[self.stage + 1] if self.stage + 1 < len(self.stages) else None


@dataclass(frozen=True, slots=True)
class FleetView:
    """Routers that polled in the last two minutes, and how many of them applied the rollout's revision."""

    routers: int
    applied: int
    rejected: tuple[str, ...] = ()  # routers that refused the candidate's document


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Whether we would see harm if there were any."""

    candidate_decisions: int = 0  # in this rollout, older than the outcome lag
    candidate_outcomes: int = 0  # ever, in this rollout
    newest_outcome_at: datetime | None = None  # arrival of this rollout's newest outcome, either arm
