"""What a completed rollout saved and did to quality in 30 days, next to the projection. Reads only.

Projected is what the arms showed in the same minutes. Realised compares the candidate's version after completion with
the week before it had any traffic, at one mix of endpoints; other things may have changed between the two periods.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple
from uuid import UUID

from rollout_app.blast_radius.radius import moves_of
from rollout_app.blast_radius.week import SPAN
from rollout_app.engine.diagnosis import Change, OutcomeSums, PeriodComparison, compare_periods
from rollout_app.engine.diagnosis.compare import compared_cells
from rollout_app.engine.diagnosis.figures import total
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from rollout_app.review import reading
from rollout_app.review.reading import Routes, Span
from rollout_app.review.rollouts import (
    LONGEST_AFTER,
    RolloutPeriods,
    RolloutSums,
    read_rollouts,
    saving,
    spans_of,
)
from rollout_app.review.span import TrafficSpan

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
    """The effect in up to 30 days (`span`) after completion. `after`: the candidate's version; `others`: tasks of other
    versions.

    `ran`: what the candidate's own tasks saved while it ran, both arms in the same minutes; None: unknown.

    `projected`, `projected_failures`: from the arms in the same minutes. `saved`: nano-USD, compared with what
    the same tasks would have cost before, on the endpoints that are compared (`comparison.covered`); None: unknown.
    """

    start: datetime
    end: datetime
    span: TrafficSpan
    before: OutcomeSums
    after: OutcomeSums
    others: int
    comparison: PeriodComparison
    projected: Change | None
    projected_failures: Change | None
    saved: Change | None
    ran: Change | None
    parts: Sequence[RealisedPart]

    @property
    def saved_a_day(self) -> Change | None:
        """`saved` per day; None if it is unknown, or of less than a day."""
        if self.saved is None or not self.span.is_long:
            return None
        return Change(
            *(value / self.span.days for value in (self.saved.estimate, self.saved.low, self.saved.high))
        )


class RealisedTimes(NamedTuple):
    """The periods to read for a completed rollout: its minutes, the week before, and the parts after completion."""

    rollout: Rollout
    span: Span
    before: Span
    parts: Sequence[Span]


def realised(rollout: Rollout, now: datetime) -> Realised | None:
    """Return the effect; None unless the rollout is completed and some time has passed since."""
    found = read_realised([rollout], now).get(rollout.pk)
    return None if found is None else found()


def read_realised(rollouts: Sequence[Rollout], now: datetime) -> dict[UUID, Callable[[], Realised]]:
    """Read the data of several rollouts in seven queries, and return a function for each that computes its effect.

    An error in the computation then affects only that rollout. Rollouts without an effect (`realised`) are left out.
    """
    times = _times([each for each in rollouts if _has_passed(each, now)], now)
    read = read_rollouts(
        [RolloutPeriods(each.rollout, each.span, [[each.before], each.parts]) for each in times]
    )
    return {each.rollout.pk: partial(_computed, each, found) for each, found in zip(times, read, strict=True)}


def _has_passed(rollout: Rollout, now: datetime) -> bool:
    return rollout.state == State.COMPLETED and rollout.ended_at is not None and now > rollout.ended_at


def _times(rollouts: Sequence[Rollout], now: datetime) -> list[RealisedTimes]:
    times, moves = [], moves_of(rollouts)
    for rollout, span in zip(rollouts, spans_of(rollouts, now), strict=True):
        ended = rollout.ended_at or now
        first = moves[rollout.pk] or rollout.started_at or ended
        parts = _parts(ended, min(now, ended + LONGEST_AFTER))
        times.append(RealisedTimes(rollout, span, (first - SPAN, first), parts))
    return times


def _computed(times: RealisedTimes, found: RolloutSums) -> Realised:
    rollout, (start, end) = times.rollout, (times.parts[0][0], times.parts[-1][1])
    (week,), parts = found.others
    before = _of(week, rollout.baseline.number)
    ours = [_of(part, rollout.candidate.number) for part in parts]
    now, was = (_by_endpoint(side) for side in (reading.added(ours), before))
    comparison, arms = compare_periods(now, was), found.compared()
    after = total(reading.added(ours).values())
    span = TrafficSpan.between(start, end)
    saved = saving(total(side for side, _ in compared_cells(now, was)), comparison)
    return Realised(
        start=start,
        end=end,
        span=span,
        before=total(before.values()),
        after=after,
        others=sum(total(part.values()).tasks for part in parts) - after.tasks,
        comparison=comparison,
        projected=arms.cost_per_success,
        projected_failures=arms.failures,
        saved=saved,
        ran=saving(total(found.arm("candidate").values()), arms),
        parts=[
            RealisedPart(*span, total(part.values()), _compared(part, before))
            for span, part in zip(times.parts, ours, strict=True)
        ],
    )


def _of(routes: Routes, version: int) -> Routes:
    return {route: sums for route, sums in routes.items() if route.version == version and sums.tasks}


def _compared(now: Routes, before: Routes) -> PeriodComparison:
    return compare_periods(_by_endpoint(now), _by_endpoint(before))


def _by_endpoint(routes: Routes) -> dict[str, OutcomeSums]:
    return reading.grouped(routes, lambda route: route.endpoint)


def _parts(start: datetime, end: datetime) -> list[tuple[datetime, datetime]]:
    spans = []
    while start < end:
        following = min(start + PART, end)
        spans.append((start, following))
        start = following
    return spans
