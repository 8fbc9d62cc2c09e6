"""Verdicts in words, with their figures. Pure."""

import math
from collections.abc import Sequence

from rollout_app.engine.accumulator import Judgement
from rollout_app.engine.evidence import Stage
from rollout_app.engine.guardrails import Verdict, VerdictResult
from rollout_app.engine.metrics import RATIOS, Metric

_FIGURES = {
    Metric.FAILURE: "failures",
    Metric.COST_PER_SUCCESS: "cost per success",
    Metric.ERROR: "errors",
    Metric.ESCALATION: "escalations",
    Metric.FALLBACK: "fallbacks",
    Metric.RETRY: "retries",
    Metric.LATENCY_TAIL: "slow tasks",
    Metric.COST_TAIL: "dear tasks",
    Metric.QUALITY: "loss of mean quality",
}


def figure(metric: Metric) -> str:
    """What the metric counts, as it stands in a sentence."""
    return _FIGURES[metric]


def change(verdict: Verdict, value: float | None) -> str:
    """A value of the verdict's figure: "+2.1 points", "+10.0 %", or as it is for an absolute bound."""
    if value is None:
        return "unknown"
    absolute = verdict.name != verdict.metric
    if verdict.metric in RATIOS:
        if not absolute:
            return f"{value * 100:+.1f} %"
        return f"{value:.3f}" if verdict.metric is Metric.QUALITY else f"${value / 1e9:.6f}"
    return f"{value * 100:.1f} %" if absolute else f"{value * 100:+.1f} points"


def harm_of(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """One clause: what is seen, on how many tasks, against which margin."""
    return f"{_seen(verdict, stages)}, margin {change(verdict, verdict.margin)}"


def lacking_of(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """One clause: what is seen, on how many tasks, and what an advance asks for."""
    if verdict.result is VerdictResult.NO_DATA:
        return _seen(verdict, stages)
    safe, asked = math.exp(min(verdict.log_e_safe, 700)), change(verdict, verdict.stage_margin)
    return (
        f"{_seen(verdict, stages)}; the evidence that it stays below {asked} is {safe:.1f}, and 20 is needed"
    )


def _seen(verdict: Verdict, stages: Sequence[Stage]) -> str:
    what = figure(verdict.metric)
    what = what[0].upper() + what[1:]
    n = f"{verdict.n_candidate:,.0f} against {verdict.n_baseline:,.0f} tasks"
    if verdict.result is VerdictResult.NO_DATA:
        return f"{what}: nothing to judge by yet ({n})"
    return f"{what} {change(verdict, verdict.estimate)} on {n}{_later(verdict, stages)}"


def _later(verdict: Verdict, stages: Sequence[Stage]) -> str:
    """A harm that set in with a later stage: what was seen since then."""
    if verdict.counted_since is None:
        return ""
    return f" ({change(verdict, verdict.counted_estimate)} since {stages[verdict.counted_since].label})"


def outlook_of(code: str, judgement: Judgement) -> str:
    """What would advance a rollout that holds for `code`."""
    if code == "evidence":
        return _tasks_needed(judgement)
    return _OUTLOOKS.get(code, "")


_OUTLOOKS = {
    "freeze": "The freeze ends.",
    "srm": "A person finds out where outcomes are lost or doubled; then the rollout is started again.",
    "telemetry": "Outcomes arrive again.",
    "baseline_unhealthy": "The baseline recovers.",
    "shadow": "More shadow decisions within the limits, or another candidate.",
    "mirror": "More mirrored tasks, if the candidate is as good.",
    "amber": "More tasks: if the candidate is no worse, the evidence of harm falls.",
    "fleet": "The routers that lag or refuse catch up.",
    "approval": "A person who may approve says yes.",
}


def _tasks_needed(judgement: Judgement) -> str:
    still = judgement.open
    if not still:
        return "The stage's own least tasks and minutes."
    unheard = [figure(verdict.metric) for verdict in still if verdict.result is VerdictResult.NO_DATA]
    if unheard:
        return f"First outcomes to judge by: of {', '.join(unheard)} nothing has been reported yet."
    unknown = [figure(verdict.metric) for verdict in still if verdict.needed_tasks is None]
    if unknown:
        return (
            f"How many more tasks it takes can't be told yet for {', '.join(unknown)}: at the rates so far "
            "the evidence does not grow."
        )
    needed = max(verdict.needed_tasks or 0 for verdict in still)
    return f"About {_round(needed):,} more candidate tasks, if they go like those so far."


def _round(n: int) -> int:
    """To two digits: a forecast has no more."""
    if n < 100:
        return n
    step = int(10 ** (len(str(n)) - 2))
    return math.ceil(n / step) * step
