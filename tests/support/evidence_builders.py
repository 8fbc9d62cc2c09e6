"""Shortcuts for creating evidence."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import (
    ArmSums,
    ClosedWindow,
    FleetView,
    GradedCosts,
    RolloutView,
    Stage,
    Telemetry,
)
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.holds import Evidence
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.reference import Reference
from rollout_app.engine.states import State

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
RATES = {
    "failure": 0.08, "error": 0.01, "escalation": 0.10, "fallback": 0.01, "retry": 0.03,
    "latency_tail": 0.05, "cost_tail": 0.002,
}  # fmt: skip
REFERENCE = Reference(
    outcomes=5_000,
    rates=RATES,
    cost_v=1.0,
    cost_per_success=1_000.0,
    quality_v=0.05,
    mean_quality=0.8,
    latency_edge=160,
    cost_edge=160,
    cost_cap_nusd=5_000,
)
STAGES = (
    Stage("shadow", min_tasks=50),
    Stage("percentage", share_pcm=5_000, min_minutes=15, min_tasks=50, max_hours=72),
    Stage("percentage", share_pcm=25_000, min_tasks=50),
    Stage("percentage", share_pcm=50_000, min_tasks=50),
    Stage("percentage", share_pcm=95_000, min_tasks=50),
    Stage("full", min_minutes=15),
)
FLEET = FleetView(routers=9, applied=9)


def arm(n: int, **bad: float) -> ArmSums:
    """Return one arm of n tasks at the reference's rates, or at those given by metric; `cost` is a factor."""
    x = {metric: round(n * bad.get(metric, rate)) for metric, rate in RATES.items()}
    successes = n - x["failure"]
    mean = 900 * bad.get("cost", 1.0)
    quality = bad.get("quality", 0.8)
    sums = ArmSums(
        tasks=n,
        successes=successes,
        failures=x["failure"],
        errors=x["error"],
        escalations=x["escalation"],
        fallbacks=x["fallback"],
        retries=x["retry"],
        latency_n=n,
        latency_above=x["latency_tail"],
        cost_n=n,
        cost_above=x["cost_tail"],
        cost=round(n * mean),
        cost_sq=2 * n * mean * mean,
        cost_on_success=round(successes * mean),
        quality_n=n,
        quality=n * quality,
        quality_sq=n * (quality**2 + 0.03),
    )
    return with_graded_costs(sums)


def with_graded_costs(arm: ArmSums) -> ArmSums:
    """Fill in `costs`, for an arm in which every task has a cost and a grade."""
    costs = GradedCosts(
        arm.tasks, arm.successes, arm.cost, arm.cost_sq, arm.cost_on_success, arm.cost_uncapped
    )
    return replace(arm, costs=costs)


def stratum(stage: int, minute: int, candidate: ArmSums, baseline: ArmSums) -> ClosedWindow:
    return ClosedWindow(stage, minute, minute, candidate, baseline)


def ledger(stage: int = 1, looks: int = 0, n: tuple[int, int] = (100, 1_900), **bad: float) -> Accumulator:
    """Return an accumulator after `looks` strata of n tasks (candidate, baseline). `bad` are the candidate's rates."""
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    for minute in range(looks):
        opened.add(stratum(stage, minute, arm(n[0], **bad), arm(n[1])))
    return opened


def view(stage: int = 1, *, minutes: float = 60, **changes: Any) -> RolloutView:
    defaults: dict[str, Any] = {
        "state": State.RUNNING,
        "stages": STAGES,
        "stage": stage,
        "stage_entered_at": NOW - timedelta(minutes=minutes),
    }
    return RolloutView(**{**defaults, **changes})


def evidence(judgement: Judgement, **changes: Any) -> Evidence:
    defaults: dict[str, Any] = {
        "judgement": judgement,
        "reference": REFERENCE,
        "telemetry": Telemetry(500, 480, NOW - timedelta(seconds=30)),
        "baseline_last_hour": arm(1_000),
    }
    return Evidence(**{**defaults, **changes})
