"""The review of one workload: a period and the period of equal length before it. Reads only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pointsman.reporting.histogram import Histogram
from policies_app.models import Assignment, Environment, Workload
from rollout_app.engine.diagnosis import Diagnosis, OutcomeSums, PeriodComparison, compare_periods
from rollout_app.engine.diagnosis.figures import total
from rollout_app.models import Rollout
from rollout_app.review import reading, running_sums
from rollout_app.review.attribution import CellChange, Comparable, ModelShift, attribute, joined, model_shift
from rollout_app.review.diagnosing import PARTS, cells_of, diagnose_workload
from rollout_app.review.reading import Routes, Span, grouped
from rollout_app.review.rollouts import diagnose_rollout
from rollout_app.review.span import TrafficSpan

# The figures of a workload that was stopped are still there.
NOT_SERVED = Diagnosis(
    "not_served", "Nothing is served for this workload now, so there is no policy to diagnose."
)


@dataclass(frozen=True, slots=True)
class WorkloadReview:
    """Figures of a workload's review.

    `endpoints`: largest change first, with the model that their tasks moved to in `shifts`. `latencies`: (now,
    before). `trend`: the sums of each part of the period, oldest first.
    """

    start: datetime
    end: datetime
    now: Routes
    before: Routes
    comparison: PeriodComparison
    endpoints: list[CellChange[str]]
    whole: CellChange[None]
    shifts: Mapping[str, ModelShift | None]
    latencies: tuple[Mapping[str, Histogram], Mapping[str, Histogram]]
    trend: Sequence[tuple[Span, OutcomeSums]]
    diagnosis: Diagnosis
    comparable: Comparable
    elapsed: TrafficSpan  # the period, from the first minute with outcomes on

    @property
    def days(self) -> float:
        return (self.end - self.start) / timedelta(days=1)

    @property
    def against(self) -> str:
        return time_before(self.end - self.start)


def review_workload(
    environment: Environment, workload: Workload, *, end: datetime, length: timedelta
) -> WorkloadReview:
    """Review the period of `length` that ends at `end`."""
    start, earlier = end - length, end - 2 * length
    spans = reading.parts_of(start, end, PARTS)
    read = reading.times(environment, workload, [(earlier, start), *spans])
    before, *parts = reading.routes_by_part(read)
    now = reading.added(parts)
    latencies = reading.latencies_by_part(read)
    endpoints = attribute(*(grouped(side, lambda route: route.endpoint) for side in (now, before)))
    assignments = Assignment.objects.select_related("baseline", "workload")
    served, whole = (
        assignments.filter(environment=environment, workload=workload).first(),
        joined(None, endpoints),
    )
    known = running_sums.known(environment, end)
    partial = not known.reaches(earlier.astimezone(UTC).date())
    return WorkloadReview(
        start=start,
        end=end,
        now=now,
        before=before,
        comparison=compare_periods(*cells_of(now, before)),
        endpoints=endpoints,
        whole=whole,
        shifts={cell.key: _shift(cell.key, now, before) for cell in endpoints},
        latencies=(reading.merged(latencies[1:]), latencies[0]),
        trend=[(span, total(part.values())) for span, part in zip(spans, parts, strict=True)],
        diagnosis=_diagnosis(served, now, before, parts, time_before(length)),
        comparable=Comparable.of(whole, partial=partial),
        elapsed=_elapsed(running_sums.begin_of_traffic(environment, known.first, end, workload), start, end),
    )


def _elapsed(since: datetime | None, start: datetime, end: datetime) -> TrafficSpan:
    return TrafficSpan.between(max(start, min(since or start, end)), end)


def time_before(length: timedelta) -> str:
    """Return words for the period before one of this length."""
    days = length / timedelta(days=1)
    return f"the {days:g} days before" if days > 1 else "the day before" if days == 1 else "the time before"


def _shift(endpoint: str, now: Routes, before: Routes) -> ModelShift | None:
    return model_shift(*(_tasks_by_model(endpoint, side) for side in (now, before)))


def _tasks_by_model(endpoint: str, side: Routes) -> dict[str, int]:
    by_model = grouped(
        {route: sums for route, sums in side.items() if route.endpoint == endpoint}, lambda route: route.model
    )
    return {model: sums.tasks for model, sums in by_model.items()}


def _diagnosis(
    served: Assignment | None, now: Routes, before: Routes, parts: Sequence[Routes], against: str
) -> Diagnosis:
    """Diagnose the rollout under way by its arms, once its candidate serves; otherwise the served version over time."""
    if served is None:
        return NOT_SERVED
    moving = str(served.rollout) if served.rollout else ""
    if moving and any(route.arm == "candidate" and route.rollout == moving for route in now):
        return diagnose_rollout(Rollout.objects.select_related().get(pk=moving))
    return diagnose_workload(served.baseline, served.workload, now, before, parts, against)
