"""The gate of the shadow stage, and its report for approvers. Pure.

In shadow the candidate's decisions are not enforced, so it can do no harm and is never rolled back on evidence. The
gate only decides whether the rollout may go on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pointsman.plurals import plural_of
from rollout_app.engine.evidence import MirrorSums, ShadowSums
from rollout_app.engine.stats.combine import LOG_SAFE
from rollout_app.engine.stats.paired import log_e_not_worse, log_e_worse

MAX_ERROR_RATE = 0.001
# The share of decisions that must have a projected cost. It is below 1 because a task whose provider failed has no
# cost under either policy. The sums cover only decisions with both costs, so the rest favours neither arm.
PRICED_SHARE = 0.9


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """What serving the candidate would change. Shares are fractions of decisions, costs are in nUSD per task."""

    decisions: int
    agreement: float | None
    error_rate: float | None
    candidate_cost: float | None
    baseline_cost: float | None
    # Fraction of the baseline's; None without a baseline cost, or if one is not known.
    cost_change: float | None
    route_shift: float | None  # share of decisions that move to another model (total variation)
    shifts: Mapping[str, float]  # by model: the change of its share
    mirror_n: int
    mirror_difference: float | None  # the candidate's success minus the baseline's, on mirrored tasks


def shadow_report(shadow: ShadowSums, mirror: MirrorSums) -> ShadowReport:
    """Return the figures of the shadow stage, as reported. A figure is None if its denominator is 0."""
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


def shown_report(shadow: ShadowSums, mirror: MirrorSums) -> ShadowReport:
    """Return the report for people: a cost that the gate calls unknown is None, and never 0 or the average of a few."""
    priced = shadow.candidate_priced, shadow.baseline_priced
    costs = shadow.candidate_cost_nusd, shadow.baseline_cost_nusd
    unknown = [_is_unknown(*arm, shadow.decisions) for arm in zip(priced, costs, strict=True)]
    report = shadow_report(shadow, mirror)
    return replace(
        report,
        candidate_cost=None if unknown[0] else report.candidate_cost,
        baseline_cost=None if unknown[1] else report.baseline_cost,
        cost_change=None if any(unknown) else report.cost_change,
    )


def _shifts(shadow: ShadowSums) -> dict[str, float]:
    """Return the change of each model's share, the largest first; empty unless both arms' routes were reported."""
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
    """The projected cost, with all calls, of a candidate that can escalate to a stronger model after an answer.

    Each is a relative change (0.1 = 10 % more) of what the tasks cost now: `low` if no task is escalated, `high` if
    all are, `expected` at the known escalation rate. None: not known.
    """

    low: float | None = None
    high: float | None = None
    expected: float | None = None


def gate(
    shadow: ShadowSums,
    *,
    min_decisions: int,
    cost_margin: float | None,
    second_stage: SecondStageCosts | None = None,
    unpriced_models: Sequence[str] | None = None,
) -> str | None:
    """Return why the rollout must stay in shadow, in one sentence, or None if it may go on.

    second_stage  the costs of the candidate's own second stage; None if it has none, or they were not requested
    unpriced_models  models of both policies without a price; None: not asked
    """
    report = shadow_report(shadow, MirrorSums())
    if report.decisions < max(1, min_decisions):
        least = max(1, min_decisions)
        words = plural_of(least, "required shadow decision has", "required shadow decisions have")
        needed = f"{report.decisions} of {least} {words} been reported."
        return needed if report.decisions else f"{needed} {_WHO_REPORTS}"
    if report.error_rate is not None and report.error_rate > MAX_ERROR_RATE:
        return (
            f"Evaluating the candidate's policy failed in {shadow.evaluation_errors} of {report.decisions} "
            f"decisions ({report.error_rate:.2%}; the limit is {MAX_ERROR_RATE:.1%})."
        )
    if cost_margin is None:
        return None
    sentence = _cost_gate(shadow, cost_margin, unpriced_models)
    if sentence or second_stage is None or has_whole_costs(shadow):
        return sentence
    return _second_stage_gate(second_stage, cost_margin)


def has_whole_costs(shadow: ShadowSums) -> bool:
    """Return whether the projected costs already include the candidate's second stage, as the callers reported it."""
    return (shadow.candidate_whole or 0) >= PRICED_SHARE * shadow.decisions


def _second_stage_gate(costs: SecondStageCosts, margin: float) -> str | None:
    """Return why the costs with escalations are too high, or None.

    A candidate's escalation rate is known only after it has served tasks. If it is unknown, the first percentage stage
    measures it, on few tasks and under the cost guardrail. Holding here instead would keep every candidate with a weak
    first model and a strong second one in shadow forever.
    """
    if costs.expected is not None:
        if costs.expected <= margin:
            return None
        return (
            f"With its second stage, the candidate's projected cost per task is {costs.expected:+.1%} compared with "
            f"the baseline's; the margin is {margin:+.0%}."
        )
    if costs.low is not None and costs.low > margin:
        return (
            f"The candidate's projected cost per task is at least {costs.low:+.1%} compared with the baseline's, even "
            f"if no task is escalated; the margin is {margin:+.0%}."
        )
    return None


def lacks_costs(shadow: ShadowSums) -> bool:
    """Return whether too few decisions have a projected cost."""
    n = shadow.decisions
    unknown = _is_unknown(shadow.candidate_priced, shadow.candidate_cost_nusd, n)
    return unknown or _too_few(shadow.baseline_priced, n)


def _too_few(priced: int | None, decisions: int) -> bool:
    return priced is not None and priced < PRICED_SHARE * decisions


def _is_unknown(priced: int | None, cost_nusd: int, decisions: int) -> bool:
    """Return whether an arm's projected cost is not known.

    Without the number of decisions that a router priced, a sum of 0 is unknown.
    """
    return (not cost_nusd) if priced is None else _too_few(priced, decisions)


_TOKENS = (
    "A router that reports only dollars does not tell what another model would cost: pass usage=Usage(input=…, "
    "output=…) to record, or use a plan without a shadow stage."
)
_OLDER = "Routers of earlier releases do not report which costs they know: upgrade them."
_WHO_REPORTS = (
    "Only routers with a client library or the router protocol report them, not those that use OFREP, flagd or "
    "/router/v1/events."
)


def _why_unpriced(models: Sequence[str] | None) -> str:
    if models is None:
        return f"Either a model has no price, or routers report no tokens. {_TOKENS} {_OLDER}"
    if models:
        return f"No price: {', '.join(models[:5])}{' and others' if len(models) > 5 else ''}."
    return f"All models have prices, but routers report no tokens. {_TOKENS} {_OLDER}"


def _cost_gate(shadow: ShadowSums, cost_margin: float, unpriced: Sequence[str] | None) -> str | None:
    """Return why the projected costs are too high or not known, or None. An unknown cost is never within the margin."""
    if shadow.candidate_priced is None and not shadow.candidate_cost_nusd:
        known = "The candidate's projected cost is not known: no decision has one."
        return f"{known} {_why_unpriced(unpriced)}"
    for arm, priced in (("candidate", shadow.candidate_priced), ("baseline", shadow.baseline_priced)):
        if priced is not None and _too_few(priced, shadow.decisions):
            return (
                f"The {arm}'s projected cost is not known: {priced:,} of {shadow.decisions:,} "
                f"{plural_of(shadow.decisions, 'decision has', 'decisions have')} one. {_why_unpriced(unpriced)}"
            )
    candidate, baseline = shadow.candidate_cost_nusd, shadow.baseline_cost_nusd
    if candidate > baseline * (1 + cost_margin):
        if not baseline:
            return "The candidate's decisions have a cost, while the baseline's cost nothing."
        return (
            f"The candidate's projected cost per task is {candidate / baseline - 1:+.1%} compared with the "
            f"baseline's; the margin is {cost_margin:+.0%}."
        )
    return None


def mirror_gate(mirror: MirrorSums, *, margin: float, stage_margin: float) -> str | None:
    """Return why the mirrored tasks are not enough, or None if quality is shown to be within `stage_margin`."""
    if not mirror.n:
        return "No task has been mirrored yet."
    lost, won = mirror.only_baseline, mirror.only_candidate
    seen = f"of {mirror.n} mirrored tasks, {lost} succeeded only with the baseline and {won} only with the candidate"
    if (lost - won) / mirror.n >= margin and log_e_worse(lost, won) >= LOG_SAFE:
        return f"The candidate is worse: {seen}."
    if log_e_not_worse(mirror.n, lost, won, stage_margin) < LOG_SAFE:
        return f"The evidence does not yet show that success is within {stage_margin * 100:g} points: {seen}."
    return None
