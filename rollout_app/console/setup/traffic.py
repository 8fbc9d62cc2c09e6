"""A workload's traffic in an environment, for estimates. Reads only."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Min, Sum

from controlplane.core import clock
from pointsman.plurals import counted
from policies_app.models import Assignment
from rollout_app.models import OutcomeBucket

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)
_MANY = 10  # tasks: a figure below it is given for a longer time


@dataclass(frozen=True, slots=True)
class TrafficFigures:
    """Traffic of the last day. `per_minute`: None without tasks. `failure`: of graded tasks, or derived from the
    quality bar.
    """

    per_minute: float | None
    failure: float

    @property
    def rate(self) -> str:
        """The tasks per minute, hour or day, as words; empty without tasks."""
        per_minute = self.per_minute or 0.0
        for minutes, unit in ((1, "a minute"), (60, "an hour"), (24 * 60, "a day")):
            if per_minute * minutes >= _MANY or unit == "a day":
                break
        return f"{counted(round(per_minute * minutes), 'task')} {unit}" if per_minute else ""


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
    )
    bar = 1 - float(assignment.workload.quality_bar)
    if not sums["tasks"]:
        return TrafficFigures(None, bar)
    # Until now, not until the last task: one task an hour ago is not 60 tasks an hour.
    minutes = max((clock.now() - sums["first"]) // _MINUTE, 0) + 1
    graded = (sums["bad"] or 0) + (sums["good"] or 0)
    return TrafficFigures(sums["tasks"] / minutes, sums["bad"] / graded if graded else bar)
