"""The shadow stage as a gate, and what it reports to whoever approves. Pure.

In shadow nothing of the candidate is enforced, so nothing can be harmed and nothing is rolled back on
evidence; the gate only refuses to go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rollout_app.engine.evidence import MirrorSums, ShadowSums
from rollout_app.engine.stats.combine import LOG_SAFE
from rollout_app.engine.stats.paired import log_e_not_worse, log_e_worse

MAX_ERROR_RATE = 0.001
# Of the decisions so many must have a projected cost. Not all: a task whose provider failed has none, whatever the
# policy. The sums are of decisions in which both costs are known, so the rest favours no arm.
PRICED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What moves if the candidate were served: shares are of decisions, costs per task in nUSD."""

    decisions: int
    agreement: float | None
    error_rate: float | None
    candidate_cost: float | None
    baseline_cost: float | None
    cost_change: float | None  # fraction of the baseline's; None without a baseline cost
    route_shift: float | None  # share of decisions that move to another model (total variation)
    shifts: Mapping[str, float]  # model: change of its share
    mirror_n: int
    mirror_difference: float | None  # candidate's success minus the baseline's, on mirrored tasks


def shadow_report(shadow: ShadowSums, mirror: MirrorSums) -> ShadowReport:
    """The figures of the shadow stage; None where there is nothing to divide by."""
    n = shadow.decisions
    arms = shadow.candidate_priced, shadow.baseline_priced
    known = min([n, *(priced for priced in arms if priced is not None)])
    shifts = _shifts(shadow)
    candidate, baseline = shadow.candidate_cost_nusd, shadow.baseline_cost_nusd
    return ShadowReport(
        decisions=n,
        agreement=shadow.agreed / n if n else None,
        error_rate=shadow.evaluation_errors / n if n else None,
        candidate_cost=candidate / known if known else None,
        baseline_cost=baseline / known if known else None,
        cost_change=candidate / baseline - 1 if baseline else None,
        route_shift=sum(abs(shift) for shift in shifts.values()) / 2 if shifts else None,
        shifts=shifts,
        mirror_n=mirror.n,
        mirror_difference=(mirror.only_candidate - mirror.only_baseline) / mirror.n if mirror.n else None,
    )


def _shifts(shadow: ShadowSums) -> dict[str, float]:
    """Change of each model's share, the largest first; empty unless both arms' routes were reported."""
    ours, theirs = sum(shadow.candidate_routes.values()), sum(shadow.baseline_routes.values())
    if not ours or not theirs:
        return {}
    models = {*shadow.candidate_routes, *shadow.baseline_routes}
    shifts = {
        model: shadow.candidate_routes.get(model, 0) / ours - shadow.baseline_routes.get(model, 0) / theirs
        for model in models
    }
    return dict(sorted(shifts.items(), key=lambda item: (-abs(item[1]), item[0])))


@dataclass(frozen=True, slots=True)
class SecondStageCosts:
    """What a candidate that may ask a stronger model after an answer would cost, with all calls. Fractions of what the
    tasks cost now: `low` if none is escalated, `high` if all are. None: not known."""

    low: float | None = None
    high: float | None = None
    expected: float | None = None


def gate(
    shadow: ShadowSums,
    *,
    min_decisions: int,
    cost_margin: float | None,
    second_stage: SecondStageCosts | None = None,
) -> str | None:
    """Why the shadow stage does not let go, in one sentence; None when it does.

    second_stage  of a candidate that has one of its own; None: first calls are all there is, or it was not asked for
    """
    report = shadow_report(shadow, MirrorSums())
    if report.decisions < max(1, min_decisions):
        return f"{report.decisions} of {max(1, min_decisions)} shadow decisions have been reported."
    if report.error_rate is not None and report.error_rate > MAX_ERROR_RATE:
        return (
            f"The candidate's policy failed to evaluate in {shadow.evaluation_errors} of {report.decisions} "
            f"decisions ({report.error_rate:.2%}; at most {MAX_ERROR_RATE:.1%} may)."
        )
    if cost_margin is None:
        return None
    sentence = _cost_gate(shadow, cost_margin)
    if sentence or second_stage is None or has_whole_costs(shadow):
        return sentence
    return _second_stage_gate(second_stage, cost_margin)


def has_whole_costs(shadow: ShadowSums) -> bool:
    """Whether the projected costs have the candidate's second stage in them already: the routers' callers told them."""
    return (shadow.candidate_whole or 0) >= PRICED_SHARE * shadow.decisions


def _second_stage_gate(costs: SecondStageCosts, margin: float) -> str | None:
    """Why the costs with escalations do not let go.

    How many tasks a candidate will escalate shows only once it serves some: where nobody knows, the first percentage
    stage finds out, on few tasks and under its own guardrail of cost. To hold here would keep every candidate that asks
    a weak model first, and a strong one where that is unsure, in shadow for good.
    """
    if costs.expected is not None:
        if costs.expected <= margin:
            return None
        return (
            f"With its second stage the candidate's projected cost per task is {costs.expected:+.1%} against the "
            f"baseline's; the margin is {margin:+.0%}."
        )
    if costs.low is not None and costs.low > margin:
        return (
            f"The candidate's projected cost per task is at least {costs.low:+.1%} against the baseline's, even if no "
            f"task is escalated; the margin is {margin:+.0%}."
        )
    return None


def _cost_gate(shadow: ShadowSums, cost_margin: float) -> str | None:
    """Why the projected costs do not let go. What is not known, is not within a margin."""
    if shadow.candidate_priced is None and not shadow.candidate_cost_nusd:
        return "The candidate's projected cost is not known: no decision has one. Do its models have prices?"
    for arm, priced in (("candidate", shadow.candidate_priced), ("baseline", shadow.baseline_priced)):
        if priced is not None and priced < PRICED_SHARE * shadow.decisions:
            return (
                f"The {arm}'s projected cost is not known: {priced:,} of {shadow.decisions:,} decisions have one. "
                "Do its models have prices?"
            )
    candidate, baseline = shadow.candidate_cost_nusd, shadow.baseline_cost_nusd
    if candidate > baseline * (1 + cost_margin):
        if not baseline:
            return "The candidate's projected cost rises from nothing: the baseline's decisions cost nothing."
        return (
            f"The candidate's projected cost per task is {candidate / baseline - 1:+.1%} against the baseline's; "
            f"the margin is {cost_margin:+.0%}."
        )
    return None


def mirror_gate(mirror: MirrorSums, *, margin: float, stage_margin: float) -> str | None:
    """Why the mirrored tasks do not let go; None when quality is shown to be within `stage_margin`."""
    if not mirror.n:
        return "No task has been mirrored yet."
    lost, won = mirror.only_baseline, mirror.only_candidate
    seen = (
        f"of {mirror.n} mirrored tasks {lost} succeeded with the baseline only, {won} with the candidate only"
    )
    if (lost - won) / mirror.n >= margin and log_e_worse(lost, won) >= LOG_SAFE:
        return f"The candidate is worse: {seen}."
    if log_e_not_worse(mirror.n, lost, won, stage_margin) < LOG_SAFE:
        return f"It is not shown yet that success is within {stage_margin * 100:g} points: {seen}."
    return None
