"""Describe verdicts in words, with their figures. Pure."""

import math
from collections.abc import Sequence

from pointsman.plurals import counted, plural_of
from rollout_app.engine.evidence import Stage
from rollout_app.engine.judgement import Judgement, UnitsSeen
from rollout_app.engine.measures.shares import DIFFERING, LATE, UNFINISHED, UNGRADED, UNPRICED, ShareVerdict
from rollout_app.engine.metrics import RATIOS, Metric
from rollout_app.engine.verdicts import Verdict, VerdictResult

_MOST_SLICES = 3  # that one sentence names
_MOST = 10.0  # 1,000 %: a larger figure says nothing more


def figure(metric: Metric) -> str:
    """Return the metric's name for use in a sentence."""
    return metric.spec.phrase


def evidence_of(log_e: float) -> str:
    """Format an e-value, given as its logarithm: "0.4", "37", "over 1,000"."""
    if log_e > math.log(1_000):
        return "over 1,000"
    value = math.exp(log_e)
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}"


def change(verdict: Verdict, value: float | None) -> str:
    """Format a value of the verdict's figure: "+2.1 points", "+10.0 %", or without a sign for an absolute bound."""
    if value is None:
        return "unknown"
    absolute = verdict.is_bound
    if verdict.metric in RATIOS:
        if not absolute:
            return (
                f"{value * 100:+.1f} %"
                if abs(value) <= _MOST
                else f"over {math.copysign(1_000, value):+,.0f} %"
            )
        return f"{value:.3f}" if verdict.metric.spec.lower_is_worse else f"${value / 1e9:.6f}"
    return f"{value * 100:.1f} %" if absolute else f"{value * 100:+.1f} points"


def harm_of(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """Return one clause: the figure, the number of tasks, the margin, and the slices that are hurt."""
    limit = "bound" if verdict.is_bound else "margin"
    return f"{_seen(verdict, stages)}, {limit} {change(verdict, verdict.margin)}{_where(verdict)}"


def lacking_of(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """Return one clause: the figure, the number of tasks, and the evidence that an advance requires."""
    if verdict.result is VerdictResult.NO_DATA:
        return _seen(verdict, stages)
    asked = change(verdict, verdict.stage_margin)
    note = f" ({verdict.note.rstrip('.')})" if verdict.note else ""
    return (
        f"{_seen(verdict, stages)}; the evidence that it stays {'above' if _is_floor(verdict) else 'below'} {asked} is "
        f"{evidence_of(verdict.log_e_safe)}, and 20 is needed{note}"
    )


def _is_floor(verdict: Verdict) -> bool:
    """Return whether it is an absolute guardrail that the figure may not fall below."""
    return verdict.is_bound and verdict.metric.spec.lower_is_worse


def _seen(verdict: Verdict, stages: Sequence[Stage]) -> str:
    what = "mean quality" if _is_floor(verdict) else figure(verdict.metric)
    what = what[0].upper() + what[1:]
    n = f"{verdict.n_candidate:,.0f} against {verdict.n_baseline:,.0f} tasks"
    if verdict.result is VerdictResult.NO_DATA:
        note = f". {verdict.note.rstrip('.')}" if verdict.note else ""
        return f"{what}: {'it cannot be judged' if _heard_of(verdict) else 'nothing to judge by yet'} ({n}){note}"
    return f"{what} {change(verdict, verdict.estimate)} on {n}{_later(verdict, stages)}"


def _heard_of(verdict: Verdict) -> bool:
    """Return whether there are tasks to judge by: of both arms, or of the candidate for an absolute bound."""
    return bool(verdict.n_candidate) and (verdict.is_bound or bool(verdict.n_baseline))


def _later(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """Return the estimate since the stage in which the harm began, if that is not the first."""
    if verdict.counted_since is None:
        return ""
    return f" ({change(verdict, verdict.counted_estimate)} since {stages[verdict.counted_since].label})"


def _where(verdict: Verdict) -> str:
    """Return a clause that names the endpoints and route pairs that are hurt, or "" without any."""
    hurt = verdict.hurt
    if not hurt:
        return ""
    names = [f"{one.name} ({change(verdict, one.estimate)})" for one in hurt[:_MOST_SLICES]]
    more = f" and {len(hurt) - _MOST_SLICES} more" if len(hurt) > _MOST_SLICES else ""
    return f"; worst hit: {', '.join(names)}{more}"


_SHARES = {
    UNFINISHED: "of the {arm}'s decided tasks have not been reported",
    LATE: "of the {arm}'s tasks were reported after their window had closed",
    UNGRADED: "of the {arm}'s tasks have no grade",
    UNPRICED: "of the {arm}'s tasks have no cost",
    DIFFERING: "of the {arm}'s tasks would be treated differently by the two policies",
}


def missing_of(share: ShareVerdict) -> str:
    """Return one sentence: "12.0 % of the candidate's tasks have no grade, 1.0 % of the baseline's."."""
    of_candidate = _SHARES[share.kind].format(arm="candidate")
    sentence = (
        f"{share.candidate * 100:.1f} % {of_candidate}, {share.baseline * 100:.1f} % of the baseline's."
    )
    if share.kind == DIFFERING:
        sentence += " The share should be the same in both arms."
    return sentence


def units_of(units: UnitsSeen | None) -> str:
    """Return sentences on how sticky units affect the evidence, with a leading space; empty if they do not."""
    if units is None:
        return ""
    said = []
    if units.left_out:
        cells = ", ".join(str(cell) for cell in units.left_out[:_MOST_SLICES])
        count = len(units.left_out)
        said.append(
            f"{counted(count, 'heavy unit')} (hash cell {cells}{' …' if count > 3 else ''}) with "
            f"{units.share_left_out:.0%} of the traffic {plural_of(count, 'is', 'are')} excluded from the failure "
            "comparison."
        )
    if units.deff >= _CLEAR_DEFF:
        said.append(
            f"Tasks of one unit resemble each other: {units.deff:.1f} of them carry as much information as one "
            "independent task."
        )
    return "".join(f" {sentence}" for sentence in said)


_CLEAR_DEFF = 1.5


def outlook_of(code: str, judgement: Judgement) -> str:
    """Return what would end a hold with this code."""
    if code == "evidence":
        return _tasks_needed(judgement)
    return _OUTLOOKS.get(code, "")


_OUTLOOKS = {
    "freeze": "The freeze ends.",
    "srm": "A person finds out where outcomes are lost or counted twice, and then starts a new rollout.",
    "telemetry": "Outcomes arrive again.",
    "baseline_unhealthy": "The baseline recovers.",
    "environment": "The baseline recovers.",  # the same code's name in older rows
    "incomplete": "The arms report the same share again, or a person finds out why they do not.",
    "evaluation_failed": "A person finds the cause in the log and fixes it.",
    "unguarded": "A person advances it, or a guardrail is switched on again.",
    "shadow": "More shadow decisions within the limits, or another candidate.",
    "mirror": "More mirrored tasks, if the candidate is as good.",
    "amber": "More tasks: if the candidate is no worse, the evidence of harm falls.",
    "fleet": "The routers that lag behind, or rejected the document, apply this stage.",
    "approval": "An approver approves the stage.",
}


def _tasks_needed(judgement: Judgement) -> str:
    still = judgement.open
    if not still:
        return "The stage's minimum tasks and minutes."
    no_data = [verdict for verdict in still if verdict.result is VerdictResult.NO_DATA]
    if undefined := [verdict for verdict in no_data if _heard_of(verdict)]:
        return f"{_noted(undefined)}A person advances the rollout or rolls it back. {_INSTEAD}"
    if no_data:
        unheard = ", ".join(figure(verdict.metric) for verdict in no_data)
        return f"The first reports of {unheard}: there are none yet."
    unknown = [verdict for verdict in still if verdict.needed_tasks is None]
    if unknown:
        names = ", ".join(figure(verdict.metric) for verdict in unknown)
        return (
            f"The number of further tasks for {names} cannot be estimated yet: at the rates so far the evidence does "
            f"not grow. {_noted(unknown)}"
        ).rstrip()
    needed = max(verdict.needed_tasks or 0 for verdict in still)
    return f"About {_round(needed):,} more candidate tasks, if the candidate is no worse."


_INSTEAD = "In later rollouts, an absolute bound can take the place of this guardrail."


def _noted(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts' notes, each with a space after it."""
    return "".join(f"{note} " for note in dict.fromkeys(verdict.note for verdict in verdicts) if note)


def _round(n: int) -> int:
    """Round up to two significant digits: a forecast is no more precise."""
    if n < 100:
        return n
    step = int(10 ** (len(str(n)) - 2))
    return math.ceil(n / step) * step
