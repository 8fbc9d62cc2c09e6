"""A workload's traffic in an environment, for estimates. Reads only."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Max, Min, Sum

from controlplane.core import clock
from policies_app.models import Assignment
from rollout_app.models import OutcomeBucket

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """Traffic of the last day. `per_minute`: None without tasks. `failure`: of graded tasks, or derived from the
    quality bar.
    """

    per_minute: float | None
    failure: float


def traffic(assignment: Assignment) -> TrafficFigures:
    since = clock.now() - _DAY
    # The unique key of buckets has the minute right after environment and workload. That of the arms' totals has
    # it last, so the database would read all minutes, however old.
    rows = OutcomeBucket.objects.filter(
        environment=assignment.environment_id, workload=assignment.workload_id, minute__gte=since
    )
    sums = rows.aggregate(
        tasks=Sum("tasks"),
        bad=Sum("failures"),
        good=Sum("successes"),
        first=Min("minute"),
        last=Max("minute"),
    )
    bar = 1 - float(assignment.workload.quality_bar)
    if not sums["tasks"]:
        return TrafficFigures(None, bar)
    minutes = (sums["last"] - sums["first"]).total_seconds() / 60 + 1
    graded = (sums["bad"] or 0) + (sums["good"] or 0)
    return TrafficFigures(sums["tasks"] / minutes, sums["bad"] / graded if graded else bar)
