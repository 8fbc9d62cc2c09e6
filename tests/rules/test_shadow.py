"""What the shadow stage reports."""

import pytest

from rollout_app.engine.evidence import MirrorSums, ShadowSums
from rollout_app.engine.shadow import shadow_report


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
