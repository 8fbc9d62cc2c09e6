"""Rebuild all rollups from the stored outcomes, and check the rollups against them."""

import math
from datetime import datetime
from typing import Any

from django.db.models.functions import TruncHour

from controlplane.core.bulk import chunks
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns
from rollout_app.review.models import HourOutcomes, HourState
from rollout_app.review.rollups import HOUR, ROLLED, ROUTE, mark_changed, roll_up, run_on, summed

_ROWS = 500  # rows per statement


def mark_all(since: datetime | None = None) -> int:
    """Mark every hour with stored outcomes for the job to sum again. Return how many."""
    kept = OutcomeBucket.objects.filter(minute__gte=since) if since else OutcomeBucket.objects.all()
    marked = 0
    for environment, workload in kept.order_by().values_list("environment", "workload").distinct():
        rows = kept.filter(environment=environment, workload=workload).annotate(hour=TruncHour("minute"))
        hours = list(rows.order_by("hour").values_list("hour", flat=True).distinct())
        for some in chunks(hours, _ROWS):
            mark_changed((environment, workload, hour) for hour in some)
        marked += len(hours)
    return marked


def rebuild(since: datetime | None = None, now: datetime | None = None) -> int:
    """Sum everything again from the stored outcomes. Return the number of workload hours."""
    mark_all(since)
    done = roll_up(now, busy_s=math.inf)
    run_on(now)
    return done


def differences() -> list[str]:
    """Return sentences on sums that do not match the outcomes. Empty unless something bypassed ingest.

    Leaves out hours that are marked, and hours whose outcomes are no longer stored.
    """
    wrong: list[str] = []
    clean = HourState.objects.filter(ROLLED).order_by("hour").values_list("environment", "workload", "hour")
    for environment, workload, hour in clean.iterator():
        wrong += _differences_of(environment, workload, hour)
    return wrong


def _differences_of(environment: int, workload: int, hour: datetime) -> list[str]:
    place = {"environment": environment, "workload": workload}
    outcomes = OutcomeBucket.objects.filter(**place, minute__gte=hour, minute__lt=hour + HOUR)
    if not outcomes.exists():
        return []
    hours = HourOutcomes.objects.filter(**place, hour=hour)
    kept = {key: row for key, _, row in summed(hours, ROUTE, columns.from_rows())}
    right = {key: row for key, _, row in summed(outcomes, ROUTE, columns.from_outcomes())}
    at = f"{hour:%Y-%m-%d %H}:00, environment {environment}, workload {workload}"
    wrong = [
        f"{at}, {key}: {name} is {kept.get(key, {}).get(name)} and should be {row[name]}"
        for key, row in right.items()
        for name in columns.COLUMNS
        if not _is_equal(kept.get(key, {}).get(name), row[name])
    ]
    return wrong + [f"{at}, {key} has sums but no outcomes" for key in kept.keys() - right.keys()]


def _is_equal(one: Any, other: Any) -> bool:
    """Compare values. Databases add floats in different orders, so the last digits may differ."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-9 * abs(other)
    return bool(one == other)
