"""The metrics: one row each, which holds everything specific to the metric.

To add one, add its row here, a field of `evidence.ArmSums`, and the column (with its migration) that the field is
read from; docs/how-to/add-a-guardrail.md explains the steps. Margins are fractions: 0.02 is 2 points of a rate, 0.10
a tenth of a ratio.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.ratios import Moments

RATE_CAP, RATIO_CAP = 0.20, 1.00  # no stage, however small, tolerates more


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric. Has either `counts` (a rate: tasks and bad tasks) or `moments` (a ratio: y and d)."""

    label: str  # as a heading
    phrase: str  # as used within a sentence
    margin: float  # D, unless a workload sets its own
    weight: float  # in the decision to roll back; 0: judged only if a workload asks for it
    counts: Callable[[ArmSums], tuple[int, int]] | None = None
    moments: Callable[[ArmSums], Moments] | None = None
    known: Callable[[Reference], bool] = lambda reference: True  # noqa: ARG005 — whether it can be judged at all
    lower_is_worse: bool = False
    gates: bool = True  # must be shown safe before an advance
    steady: bool = False  # rare and stable enough that the rate before the rollout bounds it
    # Judged only if the baseline's policy has it, as it cannot be compared with its absence.
    mechanism: str = ""
    unless_cheaper: bool = False  # judged only while cost per success is not shown to be safe
    graded: bool = False  # computed from graded tasks, with allowance for missing grades
    priced: bool = False  # computed from costs: capped, with allowance for missing prices
    figure: str = "outcome"  # what a task needs to count in a rate; allowance is made for tasks without it

    @property
    def is_ratio(self) -> bool:
        return self.moments is not None

    @property
    def cap(self) -> float:
        return RATIO_CAP if self.is_ratio else RATE_CAP


_UNKNOWN = MetricSpec("", "", 0.0, 0.0)


def _cost(arm: ArmSums) -> Moments:
    c = arm.costs
    return Moments(c.n, c.cost, c.successes, c.cost_sq, c.cost_on_success, c.successes)


def _quality(arm: ArmSums) -> Moments:
    n = arm.quality_n
    return Moments(n, arm.quality, n, arm.quality_sq, arm.quality, n)


class Metric(StrEnum):
    """The metrics. Each row has the name used in the API and the database, and its spec."""

    spec: MetricSpec

    def __new__(cls, value: str, spec: MetricSpec = _UNKNOWN) -> Self:
        member = str.__new__(cls, value)
        member._value_ = value
        member.spec = spec
        return member

    FAILURE = "failure", MetricSpec(
        "Failures", "failures", 0.02, 0.30, lambda arm: (arm.graded, arm.failures), graded=True,
        figure="grade",
    )  # fmt: skip
    COST_PER_SUCCESS = "cost_per_success", MetricSpec(
        "Cost per success", "cost per success", 0.10, 0.20, moments=_cost, priced=True, graded=True
    )  # fmt: skip
    ERROR = "error", MetricSpec(
        "Errors", "errors", 0.01, 0.10, lambda arm: (arm.tasks, min(arm.errors, arm.tasks)), steady=True
    )  # fmt: skip
    ESCALATION = "escalation", MetricSpec(
        "Escalations", "escalations", 0.03, 0.05, lambda arm: (arm.tasks, min(arm.escalations, arm.tasks)),
        mechanism="escalate", unless_cheaper=True,
    )  # fmt: skip
    FALLBACK = "fallback", MetricSpec(
        "Fallbacks", "fallbacks", 0.01, 0.10, lambda arm: (arm.tasks, min(arm.fallbacks, arm.tasks)),
        mechanism="fallback", steady=True,
    )  # fmt: skip
    RETRY = "retry", MetricSpec(
        "Retries", "retries", 0.02, 0.10, lambda arm: (arm.tasks, min(arm.retries, arm.tasks)),
        mechanism="retry", steady=True,
    )  # fmt: skip
    LATENCY_TAIL = "latency_tail", MetricSpec(
        "Slow tasks", "slow tasks", 0.025, 0.10, lambda arm: (arm.latency_n, arm.latency_above),
        known=lambda reference: reference.latency_edge is not None, figure="latency",
    )  # fmt: skip
    COST_TAIL = "cost_tail", MetricSpec(
        "Expensive tasks", "expensive tasks", 0.002, 0.05, lambda arm: (arm.cost_n, arm.cost_above),
        known=lambda reference: reference.cost_edge is not None, gates=False, figure="cost",
    )  # fmt: skip
    QUALITY = "quality", MetricSpec(
        "Mean quality", "loss of mean quality", 0.02, 0.0, moments=_quality, lower_is_worse=True, graded=True,
        known=lambda reference: reference.mean_quality is not None,
    )  # fmt: skip


RATIOS = frozenset(metric for metric in Metric if metric.spec.is_ratio)


def count(metric: Metric, arm: ArmSums) -> tuple[int, int]:
    """Return (n, x): the tasks of a rate and the bad ones among them. Failure leaves out ungraded tasks."""
    if metric.spec.counts is None:
        raise ValueError(f"{metric} is not a rate")
    return metric.spec.counts(arm)


def moments(metric: Metric, arm: ArmSums) -> Moments:
    """Return y and d of a ratio: cost and successes, or score and tasks."""
    if metric.spec.moments is None:
        raise ValueError(f"{metric} is not a ratio")
    return metric.spec.moments(arm)
