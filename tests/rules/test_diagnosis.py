"""The diagnosis in words."""

from dataclasses import replace
from typing import Any

import pytest

from rollout_app.engine.diagnosis import PolicyFigures, diagnose
from rollout_app.engine.evidence import ArmSums, MirrorSums, ShadowSums
from rollout_app.engine.shadow import shadow_report


def arm(n: int = 1_000, *, success: float = 0.93, cost: float = 60.0, **counts: Any) -> ArmSums:
    good = round(n * success)
    sums = ArmSums(tasks=n, successes=good, failures=n - good, cost_n=n, cost=round(n * cost))
    return replace(sums, **counts)


FIGURES = PolicyFigures(
    policy=arm(),
    before=arm(success=0.93, cost=100),
    strong_tasks=200,
    always_strong_cost=100_000,
    quality_bar=0.9,
)


@pytest.mark.parametrize(
    ("figures", "code", "says"),
    [
        (FIGURES, "healthy", "Cost per success is 40.0% lower"),
        (replace(FIGURES, policy=arm(50)), "unknown", "50 graded tasks are too few"),
        (replace(FIGURES, policy=arm(success=0.85)), "too_aggressive", "success is 85.0%"),
        (
            replace(FIGURES, windows=[arm(success=s) for s in (0.97, 0.94, 0.91)]),
            "too_aggressive",
            "97.0% → 94.0% → 91.0%",
        ),
        (
            replace(FIGURES, windows=[arm(success=s) for s in (0.931, 0.930, 0.929)]),
            "healthy",
            "within the bar",
        ),
        (
            replace(FIGURES, policy=arm(cost=92, escalations=700)),
            "too_conservative",
            "90% of the tasks end on the strong model",
        ),
        # The model ranked strongest is the cheaper one, as haiku and gemini in RouterArena: nothing to save.
        (
            replace(
                FIGURES, policy=arm(cost=100, escalations=700), before=arm(cost=160), always_weak_cost=150_000
            ),
            "healthy",
            "Cost per success is 37.5% lower",
        ),
        (
            replace(FIGURES, policy=arm(cost=100), before=arm(cost=100), always_weak_cost=150_000),
            "healthy",
            "The model ranked strongest costs 33.3% less than the one ranked weakest",
        ),
        # It is dearer, but by so little that no policy could save a tenth.
        (
            replace(FIGURES, policy=arm(cost=99), before=arm(cost=98), always_weak_cost=95_000),
            "healthy",
            "The one ranked weakest costs 5.0% less than the one ranked strongest: there is little to save",
        ),
        (
            replace(
                FIGURES,
                policy=arm(success=0.88, cost=99),
                before=arm(cost=98),
                always_weak_cost=95_000,
                strong_tasks=900,
            ),
            "unknown",
            "not moved enough",
        ),
        # It is dearer, and most tasks go there all the same.
        (
            replace(FIGURES, policy=arm(cost=92, escalations=700), always_weak_cost=5_000),
            "too_conservative",
            "it saves 8.0% against always asking it",
        ),
        (
            replace(FIGURES, policy=arm(success=0.55, cost=60), quality_bar=0.5),
            "not_a_win",
            "Cost per task fell by 40.0%, cost per success did not",
        ),
        (
            replace(FIGURES, policy=arm(retries=150)),
            "not_a_win",
            "retries rose by 15.0 points",
        ),
        (replace(FIGURES, policy=arm(cost=120), always_strong_cost=None), "unknown", "not moved enough"),
    ],
)
def test_it_says_which(figures: PolicyFigures, code: str, says: str) -> None:
    diagnosis = diagnose(figures)
    assert diagnosis.code == code
    assert says in diagnosis.sentence


def test_it_reports_the_shadow_stage() -> None:
    shadow = ShadowSums(
        decisions=100, agreed=80, candidate_cost_nusd=70, baseline_cost_nusd=100,
        candidate_routes={"small": 60, "large": 40}, baseline_routes={"large": 100},
    )  # fmt: skip
    report = shadow_report(shadow, MirrorSums(n=50, both=40, only_candidate=2, only_baseline=7, neither=1))
    assert (report.agreement, report.route_shift, report.mirror_difference) == (0.8, 0.6, -0.1)
    assert report.cost_change == pytest.approx(-0.3)
    assert list(report.shifts) == ["large", "small"]


def test_it_reports_nothing_from_nothing() -> None:
    report = shadow_report(ShadowSums(), MirrorSums())
    assert (report.agreement, report.cost_change, report.route_shift, report.mirror_difference) == (None,) * 4
