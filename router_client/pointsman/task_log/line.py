"""A finished task as a line of figures and names from closed lists, without prompts or answers.

    {"task_log": 1, "at": 1796000000.12, "environment": …, "workload": …, "decision": …, "unit": …,
     "rollout": …, "stage": 2, "mode": "percentage", "share_pcm": 5000, "arm": "candidate", "version": 13,
     "propensity": 0.05, "differing": …, "other": {"version": 12, "model": …}, "rule": …, "model": …,
     "request": {…}, "withheld": […], "attempts": [{"model": …, "cost_nusd": …, …}], "success": true, …}

Fields: docs/reference/task-log.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from pointsman.decision import Decision
from pointsman.reporting.buckets import Outcome
from pointsman.reporting.samples.figures import figures_of, number
from pointsman.token import DecisionToken

__all__ = ["FORMAT", "feedback_line", "propensity", "task_line", "unit_hash"]

FORMAT = 1
SHARES = 100_000
_OUTCOME = (
    "success",
    "quality",
    "confidence",
    "cost_nusd",
    "latency_ms",
    "error",
    "escalations",
    "fallbacks",
    "retries",
)


def task_line(
    decision: Decision, outcome: Outcome, attributes: frozenset[str], secret: bytes
) -> dict[str, Any]:
    """Return the line's content. `attributes` lists those whose strings may be written; figures always are."""
    request, withheld = figures_of(decision.request, decision.endpoint, attributes)
    steps = decision.steps
    line: dict[str, Any] = {
        "task_log": FORMAT,
        "at": round(decision.at, 3),
        "environment": decision.environment,
        "workload": decision.workload,
        "decision": decision.nonce,
        "unit": unit_hash(decision.workload, decision.unit, secret),
        "arm": decision.arm,
        "version": decision.version,
        "propensity": propensity(decision),
        "differing": decision.differing,
        "rule": decision.rule,
        "model": decision.model,
        "request": request,
        "attempts": _attempts(decision, outcome),
        "answered": steps.done.model if steps.done is not None else steps.route.model,
        **{name: getattr(outcome, name) for name in _OUTCOME},
        **_drawn(decision),
    }
    if withheld:
        line["withheld"] = withheld
    if decision.unit_missing:
        line["unit_missing"] = True
    mirror, other = outcome.mirror, decision.other
    if mirror is not None and other is not None:
        cost = mirror.candidate_cost_nusd
        line["mirror"] = {"model": other.model, "success": mirror.candidate_success, "cost_nusd": cost}
    return line


def _drawn(decision: Decision) -> dict[str, Any]:
    """Return the rollout according to the snapshot, and the other arm's first choice; empty outside a rollout."""
    assignment, rollout, other = decision.assignment, decision.assignment.rollout, decision.other
    if rollout is None:
        return {}
    found: dict[str, Any] = {
        "rollout": rollout.id, "stage": rollout.stage, "mode": rollout.mode, "share_pcm": rollout.share_pcm
    }  # fmt: skip
    if other is not None and assignment.candidate is not None:
        side = assignment.baseline if decision.side is assignment.candidate else assignment.candidate
        found["other"] = {"version": side.version, "model": other.model}
    return found


def feedback_line(at: float, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of feedback, with the same decision name as the task's line. Raises TokenInvalid."""
    return {
        "task_log": FORMAT,
        "at": round(at, 3),
        "feedback": DecisionToken.decode(item["decision_id"]).nonce,
        "kind": item["kind"],
        "success": item.get("success"),
        "score": item.get("score"),
    }


def propensity(decision: Decision) -> float:
    """Return the probability of the task's arm: its share, which is exact because it is drawn by hash.

    If nothing is drawn (no rollout, shadow, full, a pin) it is 1.
    """
    rollout = decision.assignment.rollout
    if rollout is None or rollout.mode != "percentage" or decision.assignment.pinned is not None:
        return 1.0
    share = min(max(rollout.share_pcm, 0), SHARES)
    return (share if decision.arm == "candidate" else SHARES - share) / SHARES


def unit_hash(workload: str, unit: str, secret: bytes) -> str:
    """Return the unit's pseudonym, 16 hexadecimal digits derived from unit and secret."""
    text = f"{workload}/task-log:{unit}".encode("utf-8", "replace")
    return blake2b(text, digest_size=8, key=secret).hexdigest()


def _attempts(decision: Decision, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the attempts in order; if the caller reported none, the one that it must have made."""
    trail = decision.steps.trail
    if len(trail) > 1:
        return [
            _attempt(one.model, one.cost_nusd, number(one.latency_ms), one.error, _share(one.confidence))
            for one in trail
        ]
    only = trail[0] if trail else None
    model, error = (only.model, only.error) if only is not None else (decision.model, outcome.error)
    return [_attempt(model, outcome.cost_nusd, outcome.latency_ms, error, outcome.confidence)]


def _attempt(
    model: str, cost_nusd: int | None, latency_ms: float | None, error: str | None, confidence: float | None
) -> dict[str, Any]:
    figures = {"cost_nusd": cost_nusd, "latency_ms": latency_ms, "error": error, "confidence": confidence}
    return {"model": model, **{name: value for name, value in figures.items() if value is not None}}


def _share(value: object) -> float | None:
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None
