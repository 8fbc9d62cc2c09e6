"""What the diagnosis of a workload may compare."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.core import clock
from rollout_app.review import rollups
from rollout_app.review.workloads import review_workload
from tests.support import builders
from tests.support.outcomes import outcome

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def test_answers_of_which_the_first_model_was_sure_do_not_make_it_the_strongest() -> None:
    """Regression: the main case, all strong and then weak first with 40 % escalated, was told to use only the weak
    model, because it succeeds more often on the easy tasks that it keeps than the strong one on all."""
    environment, workload, now = builders.environment(), builders.workload(quality_bar="0.9"), clock.now()
    builders.served(environment, workload)
    builders.version(workload)
    workload.assignments.update(baseline=workload.versions.get(number=2))
    place = environment, workload
    outcome(*place, now - 9 * DAY, tasks=10_000, success=0.908, cost=1_000, model="large")
    outcome(*place, now - 2 * DAY, tasks=6_000, success=0.98, cost=100, model="small", version=2)
    hard: dict[str, Any] = {"tasks": 4_000, "success": 0.8, "cost": 1_100, "model": "large", "version": 2}
    outcome(*place, now - 2 * DAY, **hard, escalations=4_000)
    rollups.refresh()
    found = review_workload(environment, workload, end=now, length=7 * DAY).diagnosis
    assert "small is the strongest" not in found.sentence
    assert found.code == "healthy"
