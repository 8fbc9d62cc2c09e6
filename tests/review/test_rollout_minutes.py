"""The minutes that the review of a rollout covers."""

from datetime import timedelta

import pytest

from controlplane.core import clock
from rollout_app.engine.diagnosis import OutcomeSums, compare_arms
from rollout_app.review.rollouts import diagnose_rollout, review_rollout, saving
from tests.support import places
from tests.support.outcomes import outcome
from tests.support.traffic import Traffic


@pytest.mark.django_db
def test_minutes_stamped_before_its_start_are_included() -> None:
    """The routers of a replay are an hour behind; the demo reported "0 graded tasks" out of thousands."""
    rollout = places.started(plan=[{"mode": "percentage", "share_pcm": 20_000}, {"mode": "full"}])
    start = (clock.now() - timedelta(hours=1)).replace(second=0, microsecond=0)
    Traffic(rollout, start=start).minutes(10)
    for at in range(10):
        for arm, version in (("baseline", 1), ("candidate", 2)):
            outcome(
                rollout.environment, rollout.workload, start + timedelta(minutes=at),
                arm=arm, version=version, rollout=str(rollout.pk), stage=0,
            )  # fmt: skip
    assert " 0 graded tasks" not in f" {diagnose_rollout(rollout).sentence}"
    review = review_rollout(rollout)
    assert review is not None
    assert sum(sums.tasks for sums in review.candidate.values()) > 0


def test_missing_costs_of_one_arm_are_not_a_saving() -> None:
    """The candidate's cheap tasks have a cost, and the others none: nobody knows what it saved."""
    baseline = OutcomeSums(
        tasks=2_000, successes=1_800, failures=200, cost_n=2_000, cost=200_000, cost_sq=2.5e7, both_n=2_000,
        both_successes=1_800, both_cost=200_000, both_cost_sq=2.5e7, both_cost_on_success=180_000,
    )  # fmt: skip
    cheap = baseline._replace(cost=120_000, both_cost=120_000, both_cost_on_success=108_000)
    half = {"cost_n": 1_200, "cost": 72_000, "both_n": 1_200, "both_successes": 1_080, "both_cost": 72_000}
    partly = cheap._replace(**half, both_cost_on_success=64_800)
    known, unknown = (saving(arm, compare_arms([(arm, baseline)])) for arm in (cheap, partly))
    assert known is not None and known.estimate == pytest.approx(80_000)
    assert unknown is None
