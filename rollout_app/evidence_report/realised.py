"""What a completed rollout saved and did to quality in 30 days, next to the projection. Reads only.

Projected is what the arms showed in the same minutes. Realised compares the candidate's version after completion with
the week before it had any traffic, at one mix of endpoints; other things may have changed between the two periods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout_app.blast_radius.radius import moved_at
from rollout_app.blast_radius.week import SPAN
from rollout_app.engine.diagnosis import Change, OutcomeSums, PeriodComparison, compare_periods
from rollout_app.engine.diagnosis.figures import total
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from rollout_app.review import reading
from rollout_app.review.reading import Routes
from rollout_app.review.rollouts import LONGEST_AFTER, candidates_tasks, compared, saving, span_of

DAY = timedelta(days=1)
PART = 7 * DAY  # so that harm in a later week is not hidden in a month's mean


@dataclass(frozen=True, slots=True)
class RealisedPart:
    """One part of the time after completion, compared with the week before the candidate had traffic."""

    start: datetime
    end: datetime
    sums: OutcomeSums
    comparison: PeriodComparison


@dataclass(frozen=True, slots=True)
class Realised:
    """The effect in up to 30 `days` after completion. `after`: the candidate's version; `others`: tasks of other
    versions.

    `ran`: what the candidate's own tasks saved while it ran, both arms in the same minutes; None: unknown.

    `projected`, `projected_failures`: from the arms in the same minutes. `saved_a_day`: nano-USD, compared with what
    the same tasks would have cost before; None: unknown.
    """

    start: datetime
    end: datetime
    days: float
    before: OutcomeSums
    after: OutcomeSums
    others: int
    comparison: PeriodComparison
    projected: Change | None
    projected_failures: Change | None
    saved_a_day: Change | None
    ran: Change | None
    parts: Sequence[RealisedPart]


def realised(rollout: Rollout, now: datetime) -> Realised | None:
    """Return the effect; None unless the rollout is completed and some time has passed since."""
    if rollout.state != State.COMPLETED or rollout.ended_at is None or now <= rollout.ended_at:
        return None
    start, end = rollout.ended_at, min(now, rollout.ended_at + LONGEST_AFTER)
    first = moved_at(rollout) or rollout.started_at or start
    place = (rollout.environment, rollout.workload)
    before = _of(reading.routes(*place, first - SPAN, first), rollout.baseline.number)
    spans = _parts(start, end)
    found = [reading.routes(*place, *span) for span in spans]
    ours = [_of(part, rollout.candidate.number) for part in found]
    comparison = _compared(reading.added(ours), before)
    span = span_of(rollout, now)
    arms = compared(rollout, *span)
    after = total(reading.added(ours).values())
    days = max((end - start) / DAY, 1 / 24)
    saved = saving(after, comparison)
    return Realised(
        start=start,
        end=end,
        days=days,
        before=total(before.values()),
        after=after,
        others=sum(total(part.values()).tasks for part in found) - after.tasks,
        comparison=comparison,
        projected=arms.cost_per_success,
        projected_failures=arms.failures,
        saved_a_day=saved and Change(saved.estimate / days, saved.low / days, saved.high / days),
        ran=saving(candidates_tasks(rollout, *span), arms),
        parts=[
            RealisedPart(*span, total(part.values()), _compared(part, before))
            for span, part in zip(spans, ours, strict=True)
        ],
    )


def _of(routes: Routes, version: int) -> Routes:
    return {route: sums for route, sums in routes.items() if route.version == version and sums.tasks}


def _compared(now: Routes, before: Routes) -> PeriodComparison:
    ours, theirs = (reading.grouped(side, lambda route: route.endpoint) for side in (now, before))
    return compare_periods(ours, theirs)


def _parts(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    spans = []
    while start < end:
        following = min(start + PART, end)
        spans.append((start, following))
        start = following
    return spans
