"""judge(guardrail, its evidence) → Verdict. Pure.

There are four verdicts. Missing evidence holds: `no_data` and `inconclusive` never let a rollout advance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import field, fields
from enum import StrEnum
from typing import Any

from rollout_app.engine.guarded import for_display, or_failed
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.measures.base import Conditions, HarmPart, Measure, slice_of, stage_of
from rollout_app.engine.metrics import Metric
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, LOG_SAFE, weighted
from rollout_app.engine.stats.naming import hurt
from rollout_app.engine.values import replace, value


class VerdictResult(StrEnum):
    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    NO_DATA = "no_data"


@value(frozen=True, slots=True)
class SliceVerdict:
    """The verdict on one endpoint or route pair. `hurt`: it is reported as harmed, at a false discovery rate of 5 %."""

    name: str
    estimate: float | None
    log_e: float
    hurt: bool

    def as_dict(self) -> dict[str, Any]:
        return {"name": self.name, "estimate": self.estimate, "log_e": self.log_e, "hurt": self.hurt}


@value(frozen=True, slots=True)
class Verdict:
    """What the evidence says about one guardrail, with everything needed to recompute it."""

    name: str
    metric: Metric
    result: VerdictResult
    n_candidate: float
    n_baseline: float
    estimate: float | None  # positive is harm: points, a fraction of the baseline's, or the absolute figure
    low: float | None  # one-sided bounds for display, 5 % each
    high: float | None
    log_e_harm: float
    log_e_safe: float
    margin: float  # D, or the bound
    stage_margin: float  # the harm that must be excluded before the next stage
    weight: float
    counted: bool  # an estimate reaches the margin, so its harm counts towards a rollback
    gates: bool  # must pass before an advance
    # roughly how many more candidate tasks until it passes; None: cannot be estimated
    needed_tasks: int | None = None
    sums: tuple[tuple[str, dict[str, Any]], ...] = ()  # (part, its statistics), for a recomputation
    log_e_counted: float = -math.inf  # ln E of the harm that counts
    counted_since: int | None = None  # the stage since which that harm is strongest; None: the start
    counted_estimate: float | None = None  # the estimate since then
    deff: float = 1.0  # the design effect that divides the evidence
    # the judged windows, one entry per stage: (stage, number of windows, first and last Unix minute)
    strata: tuple[tuple[int, int, int, int], ...] = ()
    parts: tuple[HarmPart, ...] = ()  # the parts of the evidence of harm
    differing: float | None = None  # share of differing tasks, if they are judged separately
    note: str = ""  # why it is not judged, if it is not
    slices: tuple[SliceVerdict, ...] = ()
    # by part: the amount added to ln of cost per success for units whose failure rates differ anyway
    success_shift: Mapping[str, float] = field(default_factory=dict)
    failed: str = ""  # the error's name if the guardrail could not be judged; then it never passes

    @property
    def is_bound(self) -> bool:
        """Whether it is an absolute guardrail, which is judged without the baseline."""
        return self.name != self.metric

    @property
    def waited_for(self) -> bool:
        """Whether the rollout waits for it: it must pass, and more tasks may make it pass."""
        return self.gates and self.result is VerdictResult.INCONCLUSIVE

    @property
    def broken(self) -> tuple[str, ...]:
        """The guardrail or parts that could not be computed: "failure, part slice endpoint /a (OverflowError)"."""
        parts = [f"{self.name}, part {part.name} ({part.failed})" for part in self.parts if part.failed]
        return (f"{self.name} ({self.failed})", *parts) if self.failed else tuple(parts)

    @property
    def hurt(self) -> tuple[SliceVerdict, ...]:
        """The endpoints and route pairs that are reported as harmed."""
        return tuple(one for one in self.slices if one.hurt)

    def as_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in _VERDICT_FIELDS}
        data["sums"] = [[part, sums] for part, sums in self.sums]
        data["strata"] = [list(judged) for judged in self.strata]
        data["parts"] = [part.as_dict() for part in self.parts]
        data["slices"] = [one.as_dict() for one in self.slices]
        for name in ("log_e_counted", "log_e_safe"):
            if math.isinf(data[name]):
                data[name] = None  # JSON has no infinity
        return data


_VERDICT_FIELDS = tuple(one.name for one in fields(Verdict))


def judge(
    guardrail: Guardrail, measure: Measure, conditions: Conditions, *, next_share: float, why_not: str = ""
) -> Verdict:
    """Return the verdict on one guardrail. Details that only pages and records need are added by `detailed`.

    next_share  (0 … 1) the share of traffic that an advance would give the candidate
    why_not     why the guardrail is shown but not judged; empty if it is judged
    """
    parts = () if why_not else tuple(measure.harm(conditions))
    counted = [part for part in parts if part.counted]
    log_e_harm = weighted([(part.weight, part.log_e) for part in parts])
    log_e_counted = weighted([(part.weight, part.log_e) for part in counted])
    margin = measure.margin_for(next_share)
    log_e_safe, estimate, failed = or_failed(
        f"that {guardrail.name} is safe",
        lambda: (0.0 if why_not else measure.safe(margin, conditions), measure.estimate(conditions), ""),
        lambda error: (0.0, None, error),
    )
    strongest = max(counted, key=_by_strength, default=None)
    n_candidate, n_baseline = measure.tasks()
    return Verdict(
        name=guardrail.name,
        metric=guardrail.metric,
        result=_result(guardrail, estimate, log_e_counted, log_e_safe, why_not, failed),
        n_candidate=n_candidate,
        n_baseline=n_baseline,
        estimate=estimate,
        low=None,
        high=None,
        log_e_harm=log_e_harm if parts else 0.0,
        log_e_safe=log_e_safe,
        margin=measure.threshold,
        stage_margin=margin,
        weight=guardrail.weight,
        counted=bool(counted),
        gates=guardrail.gates and not why_not,
        log_e_counted=log_e_counted,
        counted_since=stage_of(strongest.name) if strongest else None,
        counted_estimate=strongest.estimate if strongest else None,
        deff=conditions.deff,
        parts=parts,
        differing=conditions.differing,
        note=why_not or for_display("the note", lambda: measure.note(margin, conditions), ""),
        success_shift=conditions.success_shift if guardrail.metric.spec.priced else {},
        failed=failed,
    )


def not_judged(guardrail: Guardrail, measure: Measure, error: str) -> Verdict:
    """Return the verdict on a guardrail whose measure raised: no data, so it does not pass."""
    return Verdict(
        guardrail.name, guardrail.metric, VerdictResult.NO_DATA, 0, 0, None, None, None, 0.0, 0.0,
        measure.threshold, measure.threshold, guardrail.weight, counted=False, gates=guardrail.gates,
        note="It could not be judged.", failed=error,
    )  # fmt: skip


def _by_strength(part: HarmPart) -> tuple[bool, float, int]:
    """Sort key: evidence since the start first, then the strongest; ties go to the latest stage."""
    stage = stage_of(part.name)
    return stage is None, part.log_e, stage or 0


def _result(
    guardrail: Guardrail,
    estimate: float | None,
    log_e_counted: float,
    log_e_safe: float,
    why_not: str,
    failed: str,
) -> VerdictResult:
    harmful = log_e_counted + math.log(guardrail.weight) >= LOG_ROLL_BACK
    if why_not or (estimate is None and log_e_safe < LOG_SAFE and not (failed and harmful)):
        return VerdictResult.NO_DATA
    if harmful:
        return VerdictResult.FAIL
    return VerdictResult.PASS if log_e_safe >= LOG_SAFE else VerdictResult.INCONCLUSIVE


def set_aside(verdict: Verdict, note: str) -> Verdict:
    """Return the verdict as one that is only shown, because another verdict makes it irrelevant.

    It is no longer a gate and does not count as harm, so it is never "fail".
    """
    result = VerdictResult.INCONCLUSIVE if verdict.result is VerdictResult.FAIL else verdict.result
    parts = tuple(replace(part, counted=False) for part in verdict.parts)
    return replace(
        verdict, result=result, gates=False, counted=False, log_e_counted=-math.inf, parts=parts, note=note
    )


_CHEAPER = "Cost per success is shown to be safe, so this rate is displayed but not judged."


def beside_the_point(verdicts: list[Verdict]) -> list[Verdict]:
    """Set aside the guardrails that are judged only while cost per success is not shown to be safe."""
    cheaper = any(v.name == Metric.COST_PER_SUCCESS and v.result is VerdictResult.PASS for v in verdicts)
    if not cheaper:
        return verdicts
    return [
        # An owner's absolute bound holds whatever the tasks cost.
        set_aside(v, _CHEAPER) if v.metric.spec.unless_cheaper and not v.is_bound else v
        for v in verdicts
    ]


def with_named_slices(verdict: Verdict) -> Verdict:
    """Return the verdict with its endpoints and route pairs, the most harmful first, and mark those that are hurt.

    The false discovery rate among the marked ones is at most 5 %.
    """
    slices = {name: part for part in verdict.parts if (name := slice_of(part.name)) and not part.failed}
    if not slices:
        return verdict
    named = set(hurt({name: part.log_e for name, part in slices.items()}))
    found = (
        SliceVerdict(name, part.estimate, part.log_e, name in named and part.counted)
        for name, part in slices.items()
    )
    return replace(verdict, slices=tuple(sorted(found, key=lambda one: -one.log_e)))


def detailed(
    verdict: Verdict,
    measure: Measure,
    conditions: Conditions,
    windows: Sequence[tuple[int, int, int, int]],
) -> Verdict:
    """Return the verdict with its interval (for pages) and its sums (so that a record can be recomputed)."""
    interval = for_display(f"the interval of {verdict.name}", lambda: measure.interval(conditions), None)
    low, high = interval or (None, None)
    return replace(verdict, low=low, high=high, sums=tuple(measure.record().items()), strata=tuple(windows))
