"""The setting of a simulated rollout: the traffic, the candidate's effect on it, and what is not reported."""

from collections.abc import Mapping
from dataclasses import dataclass, field

SUCCESS = 0.92
RATES = {"errors": 0.01, "escalations": 0.12, "fallbacks": 0.01, "retries": 0.03}
COST_NUSD, COST_SIGMA = 400_000, 1.2
LATENCY_MS, LATENCY_SIGMA = 900, 0.6


@dataclass(frozen=True)
class Units:
    """Sticky units. `tenants`: their number, with individual failure rates; `heavy`: one unit's share of the
    traffic."""

    users: bool = False  # ten requests each over about an hour, correlated .3
    tenants: int = 0
    spread: float = 0.05  # standard deviation of the tenants' failure rates
    heavy: float = 0.0
    heavy_rate: float = 0.30
    arrives: int = 0  # the minute in which the heavy unit starts


@dataclass(frozen=True)
class Missing:
    """What is not reported, as a share of the candidate's tasks of that kind; `both`: of the tasks of both arms."""

    ungraded_failures: float = 0.0
    ungraded_successes: float = 0.0
    late_failures: float = 0.0
    late_successes: float = 0.0
    unpriced: float = 0.0  # these tasks cost `unpriced_factor` times as much
    unpriced_factor: float = 1.0
    both_ungraded: float = 0.0
    both_unfinished: float = 0.0


@dataclass(frozen=True)
class Scenario:
    """One row. The candidate's harm is added to the baseline's rate (success), or is a factor (cost, latency)."""

    name: str
    success: float = 0.0
    cost: float = 1.0
    latency: float = 1.0
    late_stage: int = 0  # the harm starts with this stage
    drift: str = ""  # "linear" 95 to 89 %, "diurnal" with volume
    outage: bool = False  # five minutes of the provider, both arms
    delay: int = 0  # minutes until an outcome is judged; another 5 % arrive later
    sigma: float = COST_SIGMA
    expensive: float = (
        0.0  # the share of the candidate's tasks that cost `expensive_factor` times as much, taken at random
    )
    expensive_factor: float = 8.0
    differing: float = 1.0  # the share of tasks that the policies treat differently; all harm is on these
    endpoints: Mapping[str, float] = field(
        default_factory=dict
    )  # shares; harm is on the one named `hurt` if any
    hurt: str = ""
    weak_first: float = (
        0.0  # candidate asks a weak model first and escalates this share; the baseline never does
    )
    tolerance_ms: float | None = None
    base_failures: float = 1 - SUCCESS
    failed_before: float | None = None  # the baseline's failures when it was measured; None: as now
    after_first: bool = False  # the candidate's first task succeeds, all later ones fail
    units: Units | None = None
    missing: Missing = Missing()
    before: int = 2_000  # graded tasks of the baseline before the rollout
    reports: bool = True  # routers report decisions and which tasks differ
    per_minute: int = 200
    step: int = 1  # minutes per evaluation
    evaluations: int = 450
    plan: str = "cautious"
    goal: str = ""
    was: str = ""  # result of the previous engine (commit fed308a), where known

    @property
    def unharmed(self) -> "Harm":
        return Harm()

    @property
    def harm(self) -> "Harm":
        return Harm(
            self.success,
            self.cost,
            self.latency,
            self.expensive,
            self.expensive_factor,
            self.weak_first,
            self.missing,
        )


@dataclass(frozen=True)
class Harm:
    """What affects the tasks of one arm."""

    success: float = 0.0
    cost: float = 1.0
    latency: float = 1.0
    expensive: float = 0.0
    expensive_factor: float = 1.0
    weak_first: float = 0.0
    missing: Missing = Missing()
