"""The minutes that the review of a rollout covers."""

from datetime import timedelta

import pytest

from controlplane.core import clock
from rollout_app.review.rollouts import diagnose_rollout, review_rollout
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
