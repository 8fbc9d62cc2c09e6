"""The review of a rollout: its arms in the same minutes, and the workload before, during and after. Reads only."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, compress, islice
from typing import NamedTuple

from controlplane.core import clock
from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import Change, Diagnosis, OutcomeSums, PeriodComparison, compare_arms
from rollout_app.engine.diagnosis.figures import NOTHING, total
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from rollout_app.outcomes import minute_totals
from rollout_app.review import reading
from rollout_app.review.attribution import CellChange, CostEffects
from rollout_app.review.diagnosing import IN_THE_SAME_MINUTES, diagnosed
from rollout_app.review.reading import Routes, Slots, Span, grouped

HOURLY_FROM = timedelta(hours=3)  # shorter rollouts are compared minute by minute
LONGEST_AFTER = timedelta(days=30)  # how long after its end the effect of a rollout is reported


@dataclass(frozen=True, slots=True)
class RolloutReview:
    """Figures of a rollout's review.

    `candidate`, `baseline`: by route, in the stages in which both served. `endpoints`: largest change first.
    `before`, `during`, `after`: the whole workload; None if there was no such period. `saved`: what the candidate's
    tasks would have cost more on the baseline, in nano-USD; None: unknown.
    """

    start: datetime
    end: datetime
    comparison: PeriodComparison
    candidate: Routes
    baseline: Routes
    endpoints: list[CellChange[str]]
    before: OutcomeSums
    during: OutcomeSums
    after: OutcomeSums | None
    saved: Change | None
    mirror_cost: int
    diagnosis: Diagnosis


class RolloutPeriods(NamedTuple):
    """A rollout to read: its minutes, and groups of further periods of its workload; those of a group are in order."""

    rollout: Rollout
    span: Span
    others: Sequence[Sequence[Span]] = ()


@dataclass(frozen=True, slots=True)
class RolloutSums:
    """What was read of a rollout. `slots`: both arms by (stage, minute or hour); `routes`: its own, over its minutes;
    `others`: all routes of the workload in each group of further periods.
    """

    rollout: Rollout
    slots: Slots
    routes: Routes
    others: Sequence[Sequence[Routes]]

    def compared(self) -> PeriodComparison:
        """Compare the arms within the same minutes (hours in a long rollout) of the same stage."""
        pairs = [
            (arms["candidate"], arms["baseline"]) for _, arms in sorted(self.slots.items()) if len(arms) == 2
        ]
        return compare_arms(pairs, deff_of(self.rollout))

    def arm(self, arm: str) -> Routes:
        """Return the arm's routes without the shadow stage, in which the candidate serves nothing to compare."""
        stages = {
            route.stage for route, sums in self.routes.items() if route.arm == "candidate" and sums.tasks
        }
        return {
            route: sums
            for route, sums in self.routes.items()
            if route.arm == arm and sums.tasks and (route.stage in stages or not stages)
        }


def read_rollouts(asked: Sequence[RolloutPeriods]) -> list[RolloutSums]:
    """Read several rollouts in five queries: three choose the sources."""
    arms = [reading.Periods(*_place(each), [each.span], str(each.rollout.pk), days=False) for each in asked]
    routes = [reading.Periods(*_place(each), [each.span], str(each.rollout.pk)) for each in asked]
    others = [[reading.Periods(*_place(each), group) for group in each.others] for each in asked]
    long = [each.span[1] - each.span[0] > HOURLY_FROM for each in asked]
    chosen = iter(reading.times_of([*compress(arms, long), *routes, *chain(*others)]))
    by_time = [
        next(chosen) if is_long else reading.minutes_of(each)
        for each, is_long in zip(arms, long, strict=True)
    ]
    slots = reading.arms_by_time(by_time, [3_600 if is_long else 60 for is_long in long])
    found = reading.routes_of(list(chosen))
    ours, rest = [whole for (whole,) in found[: len(asked)]], iter(found[len(asked) :])
    return [
        RolloutSums(each.rollout, mine, own, list(islice(rest, len(each.others))))
        for each, mine, own in zip(asked, slots, ours, strict=True)
    ]


def _place(asked: RolloutPeriods) -> tuple[Environment, Workload]:
    return asked.rollout.environment, asked.rollout.workload


def review_rollout(rollout: Rollout) -> RolloutReview | None:
    """Review a rollout. Return None if it has not started."""
    if rollout.started_at is None:
        return None
    now = clock.now()
    start, end = span_of(rollout, now)
    others = [(start - (end - start), start), (start, end)]
    if rollout.state == State.COMPLETED and now > end:
        others.append((end, min(now, end + LONGEST_AFTER)))
    (found,) = read_rollouts([RolloutPeriods(rollout, (start, end), [others])])
    before, during, *after = found.others[0]
    candidate, baseline, comparison = found.arm("candidate"), found.arm("baseline"), found.compared()
    return RolloutReview(
        start=start,
        end=end,
        comparison=comparison,
        candidate=candidate,
        baseline=baseline,
        endpoints=_endpoints(candidate, baseline),
        before=total(before.values()),
        during=total(during.values()),
        after=_of_version(after[0], rollout.candidate.number) if after else None,
        saved=saving(total(candidate.values()), comparison),
        mirror_cost=sum(sums.mirror_cost for sums in found.routes.values()),
        diagnosis=_diagnosis(found, comparison),
    )


def diagnose_rollout(rollout: Rollout) -> Diagnosis:
    """Compare the candidate with the baseline in the same minutes of the same stage."""
    (found,) = read_rollouts([RolloutPeriods(rollout, span_of(rollout, clock.now()))])
    return _diagnosis(found, found.compared())


def span_of(rollout: Rollout, now: datetime) -> Span:
    """Return the rollout's minutes, first and last in full: a task belongs to the minute in which it was decided."""
    return spans_of([rollout], now)[0]


def spans_of(rollouts: Sequence[Rollout], now: datetime) -> list[Span]:
    """Return the same of several rollouts, in one query."""
    stamped = minute_totals.stamped_of(rollouts)
    return [_span(rollout, *stamped[rollout.pk], now) for rollout in rollouts]


def _span(rollout: Rollout, first: datetime | None, last: datetime | None, now: datetime) -> Span:
    start, end = rollout.started_at or rollout.created_at, rollout.ended_at or now
    start, end = start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    # Routers stamp the minutes. In a replay or with a wrong clock, these lie outside the server's times.
    if first is not None and last is not None:
        start, end = min(start, first), max(end, last)
    return start, end + timedelta(minutes=1)


def deff_of(rollout: Rollout) -> float:
    return float((rollout.reference or {}).get("deff", 1.0))


def saving(candidate: OutcomeSums, comparison: PeriodComparison) -> Change | None:
    """Return how much less the candidate's tasks cost than at the baseline's cost per success, in nano-USD.

    None if it is unknown, also because one side lacks the cost or grade of many more of its tasks.
    """
    change = comparison.cost_per_success
    if change is None or comparison.is_uneven or min(change.low, change.estimate) <= -1:
        return None
    low, estimate, high = (
        candidate.cost * (1 / (1 + ratio) - 1) for ratio in (change.high, change.estimate, change.low)
    )
    return Change(estimate, low, high)


def _diagnosis(found: RolloutSums, comparison: PeriodComparison) -> Diagnosis:
    rollout = found.rollout
    return diagnosed(
        rollout.candidate,
        rollout.workload,
        found.arm("candidate"),
        found.routes,
        comparison,
        IN_THE_SAME_MINUTES,
        deff=deff_of(rollout),
    )


def _endpoints(candidate: Routes, baseline: Routes) -> list[CellChange[str]]:
    """Return by endpoint how much more the candidate's tasks cost than the same number of the baseline's.

    They are compared within each stage: the shares differ between stages, so a price that moves in both arms would
    otherwise look like a difference between them.
    """
    ours, theirs = (grouped(side, lambda route: route.endpoint) for side in (candidate, baseline))
    stages = [grouped(side, lambda route: (route.endpoint, route.stage)) for side in (candidate, baseline)]
    pairs: dict[str, list[tuple[OutcomeSums, OutcomeSums]]] = defaultdict(list)
    for key, mine in stages[0].items():
        pairs[key[0]].append((mine, stages[1].get(key, NOTHING)))
    cells = []
    for endpoint, sums in ours.items():
        before, more = theirs.get(endpoint, NOTHING), _more(pairs[endpoint])
        if more is None:  # an endpoint that each arm served in other stages
            more = _more([(sums, before)]) or 0.0
        cells.append(CellChange(endpoint, sums, before, CostEffects(behaviour=round(more))))
    return sorted(cells, key=lambda cell: -cell.weight)


def _more(pairs: Sequence[tuple[OutcomeSums, OutcomeSums]]) -> float | None:
    """Return the difference in cost, in proportion also of the stages without a baseline; None if none has one."""
    both = [(ours, theirs.cost_per_task) for ours, theirs in pairs if ours.cost_n and theirs.cost_n]
    known = sum(ours.cost_n for ours, _ in both)
    if not known:
        return None
    more = sum(ours.cost - ours.cost_n * (price or 0.0) for ours, price in both)
    return more * sum(ours.cost_n for ours, _ in pairs) / known


def _of_version(routes: Routes, number: int) -> OutcomeSums:
    return total(sums for route, sums in routes.items() if route.version == number)
