"""Outcomes by minute and route, written like ingest writes them."""

from datetime import datetime
from typing import Any

from django.db import transaction

from policies_app.models import Environment, Workload
from rollout_app.models import OutcomeBucket
from rollout_app.review.rollups import hour_of, mark_changed


def outcome(
    environment: Environment,
    workload: Workload,
    minute: datetime,
    *,
    tasks: int = 100,
    success: float = 0.92,
    cost: int = 1_000,
    priced: int | None = None,
    graded: int | None = None,
    endpoint: str = "/a",
    model: str = "small",
    **fields: Any,
) -> OutcomeBucket:
    """`tasks` tasks of one route, each at `cost`. `priced` and `graded` are the numbers of tasks with a cost and a
    grade."""
    known = tasks if graded is None else graded
    n = tasks if priced is None else priced
    good = round(known * success)
    values: dict[str, Any] = {
        "arm": "baseline",
        "version": 1,
        "rule": "default",
        "tasks": tasks,
        "successes": good,
        "failures": known - good,
        "ungraded": tasks - known,
        "attempts": tasks,
        "cost_n": n,
        "cost_sum": n * cost,
        "cost_sum_sq": float(n * cost * cost),
        "cost_on_success": min(n, good) * cost,
        "latency_histogram": {"zero": 0, "counts": {"100": tasks}},
    }
    with transaction.atomic():
        row = OutcomeBucket.objects.create(
            environment=environment,
            workload=workload,
            minute=minute,
            endpoint=endpoint,
            model=model,
            **(values | fields),
        )
        mark_changed([(environment.pk, workload.pk, hour_of(minute))])
    return row
