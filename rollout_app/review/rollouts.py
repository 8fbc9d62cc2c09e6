"""The review of a rollout: its arms in the same minutes, and the workload before, during and after. Reads only."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.core import clock
from rollout_app.engine.diagnosis import Change, Diagnosis, OutcomeSums, PeriodComparison, compare_arms
from rollout_app.engine.diagnosis.figures import total
from rollout_app.engine.states import State
from rollout_app.models import Rollout
from rollout_app.outcomes import minute_totals
from rollout_app.review import reading
from rollout_app.review.attribution import CellChange, CostEffects
from rollout_app.review.diagnosing import IN_THE_SAME_MINUTES, diagnosed
from rollout_app.review.reading import Routes, grouped

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


def review_rollout(rollout: Rollout) -> RolloutReview | None:
    """Review a rollout. Return None if it has not started."""
    if rollout.started_at is None:
        return None
    now = clock.now()
    start, end = span_of(rollout, now)
    found = reading.routes(rollout.environment, rollout.workload, start, end, rollout=str(rollout.pk))
    comparison = compared(rollout, start, end)
    candidate, baseline = (_arm(found, arm) for arm in ("candidate", "baseline"))
    before = reading.routes(rollout.environment, rollout.workload, start - (end - start), start)
    during = reading.routes(rollout.environment, rollout.workload, start, end)
    return RolloutReview(
        start=start,
        end=end,
        comparison=comparison,
        candidate=candidate,
        baseline=baseline,
        endpoints=_endpoints(candidate, baseline),
        before=total(before.values()),
        during=total(during.values()),
        after=_after(rollout, end, now),
        saved=saving(total(candidate.values()), comparison),
        mirror_cost=sum(sums.mirror_cost for sums in found.values()),
        diagnosis=_diagnosis(rollout, candidate, found, comparison),
    )


def diagnose_rollout(rollout: Rollout) -> Diagnosis:
    """Compare the candidate with the baseline in the same minutes of the same stage."""
    start, end = span_of(rollout, clock.now())
    found = reading.routes(rollout.environment, rollout.workload, start, end, rollout=str(rollout.pk))
    return _diagnosis(rollout, _arm(found, "candidate"), found, compared(rollout, start, end))


def span_of(rollout: Rollout, now: datetime) -> tuple[datetime, datetime]:
    """Return the rollout's minutes, first and last in full: a task belongs to the minute in which it was decided."""
    start, end = rollout.started_at or rollout.created_at, rollout.ended_at or now
    start, end = start.replace(second=0, microsecond=0), end.replace(second=0, microsecond=0)
    # Routers stamp the minutes. In a replay or with a wrong clock, these lie outside the server's times.
    first, last = minute_totals.stamped(rollout)
    if first is not None and last is not None:
        start, end = min(start, first), max(end, last)
    return start, end + timedelta(minutes=1)


def compared(rollout: Rollout, start: datetime, end: datetime) -> PeriodComparison:
    """Compare the arms within the same minutes (hours in a long rollout) of the same stage."""
    slots = reading.arms_by_time(
        rollout.environment, rollout.workload, start, end, str(rollout.pk), hourly=end - start > HOURLY_FROM
    )
    pairs = [(arms["candidate"], arms["baseline"]) for _, arms in sorted(slots.items()) if len(arms) == 2]
    return compare_arms(pairs, deff_of(rollout))


def deff_of(rollout: Rollout) -> float:
    return float((rollout.reference or {}).get("deff", 1.0))


def saving(candidate: OutcomeSums, comparison: PeriodComparison) -> Change | None:
    """Return how much less the candidate's tasks cost than at the baseline's cost per success, in nano-USD."""
    change = comparison.cost_per_success
    if change is None or min(change.low, change.estimate) <= -1:
        return None
    low, estimate, high = (
        candidate.cost * (1 / (1 + ratio) - 1) for ratio in (change.high, change.estimate, change.low)
    )
    return Change(estimate, low, high)


def candidates_tasks(rollout: Rollout, start: datetime, end: datetime) -> OutcomeSums:
    """Return what the rollout's candidate served between `start` and `end`."""
    found = reading.routes(rollout.environment, rollout.workload, start, end, rollout=str(rollout.pk))
    return total(_arm(found, "candidate").values())


def _diagnosis(rollout: Rollout, candidate: Routes, found: Routes, comparison: PeriodComparison) -> Diagnosis:
    return diagnosed(
        rollout.candidate,
        rollout.workload,
        candidate,
        found,
        comparison,
        IN_THE_SAME_MINUTES,
        deff=deff_of(rollout),
    )


def _arm(found: Routes, arm: str) -> Routes:
    """Return the arm's routes without the shadow stage, in which the candidate serves nothing to compare."""
    stages = {route.stage for route, sums in found.items() if route.arm == "candidate" and sums.tasks}
    return {
        route: sums
        for route, sums in found.items()
        if route.arm == arm and sums.tasks and (route.stage in stages or not stages)
    }


def _endpoints(candidate: Routes, baseline: Routes) -> list[CellChange[str]]:
    """Return by endpoint how much more the candidate's tasks cost than the same number of the baseline's."""
    ours, theirs = (grouped(side, lambda route: route.endpoint) for side in (candidate, baseline))
    cells = [
        CellChange(
            endpoint,
            sums,
            theirs.get(endpoint, OutcomeSums()),
            CostEffects(behaviour=_more(sums, theirs.get(endpoint))),
        )
        for endpoint, sums in ours.items()
    ]
    return sorted(cells, key=lambda cell: -cell.weight)


def _more(ours: OutcomeSums, theirs: OutcomeSums | None) -> int:
    if theirs is None or theirs.cost_per_task is None:
        return 0
    return round(ours.cost - ours.cost_n * theirs.cost_per_task)


def _after(rollout: Rollout, end: datetime, now: datetime) -> OutcomeSums | None:
    if rollout.state != State.COMPLETED or now <= end:
        return None
    found = reading.routes(rollout.environment, rollout.workload, end, min(now, end + LONGEST_AFTER))
    return total(sums for route, sums in found.items() if route.version == rollout.candidate.number)
