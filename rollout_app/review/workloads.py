"""The review of one workload: a window beside the window of equal length before it. Reads only."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from policies_app.actions import served_assignment
from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import Diagnosis
from rollout_app.engine.diagnosis.figures import total
from rollout_app.models import Rollout
from rollout_app.review import reading
from rollout_app.review.diagnosing import PARTS, diagnose_rollout, diagnose_workload, since, window
from rollout_app.review.figures import breakdown, figures
from rollout_app.review.reading import Routes, grouped

BREAKDOWNS = ("endpoint", "model", "arm", "version", "rule")


def review_workload(
    environment: Environment, workload: Workload, *, end: datetime, length: timedelta
) -> dict[str, Any]:
    """The window of `length` up to `end`: whole, by endpoint, model, arm, version and rule; its diagnosis."""
    earlier, start, end = window(end, length)
    parts = [reading.routes(environment, workload, *span) for span in reading.parts_of(start, end, PARTS)]
    now = reading.added(parts)
    before = reading.routes(environment, workload, earlier, start)
    diagnosis = _diagnosis(environment, workload, now, before, parts, since(length))
    return {
        "environment": environment.name,
        "workload": workload.name,
        "owner": workload.owner.name,
        "quality_bar": float(workload.quality_bar),
        "start": start,
        "end": end,
        "now": figures(total(now.values())),
        "before": figures(total(before.values())),
        **{
            f"by_{key}": breakdown(key, *(grouped(side, attrgetter(key)) for side in (now, before)))
            for key in BREAKDOWNS
        },
        "diagnosis": asdict(diagnosis),
    }


def _diagnosis(
    environment: Environment,
    workload: Workload,
    now: Routes,
    before: Routes,
    parts: Sequence[Routes],
    against: str,
) -> Diagnosis:
    """Of the rollout under way, arm against arm, once its candidate serves; else of what is served, over time."""
    served = served_assignment(environment.pk, workload.pk)
    moving = str(served.rollout) if served.rollout else ""
    if moving and any(route.arm == "candidate" and route.rollout == moving for route in now):
        return diagnose_rollout(Rollout.objects.select_related().get(pk=moving))
    return diagnose_workload(served.baseline, workload, now, before, parts, against)
