"""The review of an environment, or of one owner in it: whole days, from the running sums. Reads only.

A thousand workloads over 90 days take three rows per endpoint: the sums up to the end, the middle and the beginning.
The figures are as of the job's last turn, and the review says so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from operator import add, sub
from typing import Any, NamedTuple, TypeVar

from django.db.models import Q, Sum

from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.review import columns, running_sums
from rollout_app.review.attribution import (
    CellChange,
    Comparable,
    ModelShift,
    attribute,
    changes,
    joined,
    model_shift,
)
from rollout_app.review.figures import cost_interval
from rollout_app.review.models import DayOutcomes, OwnerDay
from rollout_app.review.reading import midnight
from rollout_app.review.rollups import DAY
from rollout_app.review.running_sums import Known
from rollout_app.review.span import TrafficSpan

K = TypeVar("K")
MOST_DAYS_BY_DAY = 14  # a longer period is shown by weeks


class Place(NamedTuple):
    """A cell of an environment."""

    workload: int
    endpoint: str


class WorkloadName(NamedTuple):
    """The facts about a workload that a page shows."""

    pk: int
    name: str
    owner: str
    bar: float


@dataclass(frozen=True, slots=True)
class Period:
    """`days` whole days (UTC) up to and including the last one, which may be today, and as many before them."""

    first: date
    last: date
    days: int
    now: datetime

    @classmethod
    def ending_today(cls, days: int, now: datetime) -> "Period":
        last = now.astimezone(UTC).date()
        return cls(last - (days - 1) * DAY, last, days, now)

    @property
    def before_first(self) -> date:
        return self.first - self.days * DAY

    def elapsed(self, since: datetime | None) -> TrafficSpan:
        """Return the time in the period since outcomes began. Today is not over."""
        first = midnight(self.first)
        return TrafficSpan.between(max(first, since or first), self.now)


@dataclass(frozen=True, slots=True)
class SpendPart:
    """A day or a week of the period.

    `spend`: None if it is unknown: not summed yet, before the first known day, or no task has a cost. `saved`: how much
    more its tasks would have cost at the earlier cost per task of their endpoint, over the `covered` share of the
    spend; None if no endpoint had a cost then.
    """

    first: date
    last: date
    spend: int | None
    saved: int | None
    covered: float


@dataclass(frozen=True, slots=True)
class EnvironmentReview:
    """Cells with the largest change first, the same by workload and by owner, and all together.

    `owner`: a team's name if only its workloads are included. `known`: the days with sums, and when they were updated.
    """

    environment: Environment
    owner: str | None
    period: Period
    known: Known
    cells: list[CellChange[Place]]
    workloads: list[CellChange[WorkloadName]]
    owners: list[CellChange[str]]
    whole: CellChange[None]
    names: Mapping[int, WorkloadName]

    @property
    def partial(self) -> bool:
        """Whether outcomes are not known for the whole of the earlier period."""
        return not self.known.reaches(self.period.before_first)

    @property
    def comparable(self) -> Comparable:
        return Comparable.of(self.whole, partial=self.partial)


def review_environment(
    environment: Environment, *, days: int, now: datetime, owner: str | None = None
) -> EnvironmentReview:
    """Review an environment. `owner`: a team's name, to include only its workloads."""
    period, known = Period.ending_today(days, now), running_sums.known(environment, now)
    names = _names(owner)
    sums = _sums(environment, period, known, owner)
    # Leave out workloads that were created, or given to another owner, after the names were read.
    cells = attribute(*({place: side[place] for place in side if place.workload in names} for side in sums))
    workloads = _joined_by(cells, lambda place: names[place.workload])
    owners = _joined_by(workloads, lambda workload: workload.owner)
    return EnvironmentReview(
        environment=environment,
        owner=owner,
        period=period,
        known=known,
        cells=cells,
        workloads=workloads,
        owners=owners,
        whole=joined(None, owners),
        names=names,
    )


def whole_of(environment: Environment, *, days: int, now: datetime) -> CellChange[None]:
    """Return the same period of all cells together, without the breakdowns."""
    period, known = Period.ending_today(days, now), running_sums.known(environment, now)
    return joined(None, changes(*_sums(environment, period, known, None)))


def _names(owner: str | None) -> dict[int, WorkloadName]:
    rows = Workload.objects.order_by().values_list("pk", "name", "owner__name", "quality_bar")
    if owner is not None:
        rows = rows.filter(owner__name=owner)
    return {pk: WorkloadName(pk, name, team, float(bar)) for pk, name, team, bar in rows}


def _sums(
    environment: Environment,
    period: Period,
    known: Known,
    owner: str | None,
) -> tuple[dict[Place, OutcomeSums], dict[Place, OutcomeSums]]:
    """Return sums now and before by place."""
    now, before = {}, {}
    start, middle, end = (
        known.bound(day) for day in (period.before_first - DAY, period.first - DAY, period.last)
    )
    for cell in running_sums.cells(environment, (start, middle, end), owner):
        place = Place(cell.workload, cell.endpoint)
        if any(cell.now):
            now[place] = OutcomeSums(*cell.now)
        if any(cell.before):
            before[place] = OutcomeSums(*cell.before)
    return now, before


def _joined_by(cells: Iterable[CellChange[Any]], key: Callable[[Any], K]) -> list[CellChange[K]]:
    """Combine cells by a key, largest change first."""
    groups: dict[K, list[CellChange[Any]]] = defaultdict(list)
    for cell in cells:
        groups[key(cell.key)].append(cell)
    changes = [joined(name, some) for name, some in groups.items()]
    return sorted(changes, key=lambda change: -change.weight)


# --- only for the rows that are shown --------------------------------------------------------------------


def model_shifts(review: EnvironmentReview, places: Sequence[Place]) -> dict[Place, ModelShift | None]:
    """Return where the tasks of a few places moved to, in one query."""
    period = review.period
    sides = {"now": Q(day__gte=period.first), "before": Q(day__lt=period.first)}
    rows = DayOutcomes.objects.filter(
        environment=review.environment,
        workload__in={place.workload for place in places},
        day__gte=period.before_first,
        day__lte=period.last,
    )
    tasks: dict[str, dict[Place, dict[str, int]]] = {side: defaultdict(dict) for side in sides}
    for workload, endpoint, model, *counts in (
        rows.order_by()
        .values_list("workload_id", "endpoint", "model")
        .annotate(**{side: Sum("tasks", filter=condition) for side, condition in sides.items()})
    ):
        for side, count in zip(sides, counts, strict=True):
            tasks[side][Place(workload, endpoint)][model] = int(count or 0)
    return {place: model_shift(tasks["now"][place], tasks["before"][place]) for place in places}


# --- spend and saving ------------------------------------------------------------------------------------


def spend_by_time(review: EnvironmentReview) -> list[SpendPart]:
    """Return the spend of a period by day, or by week if it is long, in one query. The parts add up to the whole."""
    period = review.period
    step = 1 if period.days <= MOST_DAYS_BY_DAY else 7
    return _spend(review.environment, period, review.known, step, review.owner, by_owner=False)[""]


def spend_by_owner(
    environment: Environment, *, days: int, now: datetime, step: int, owner: str | None = None
) -> tuple[Period, dict[str, list[SpendPart]]]:
    """Return parts of `step` days (1 or 7) by owner; the empty name stands for all owners together."""
    period, known = Period.ending_today(days, now), running_sums.known(environment, now)
    return period, _spend(environment, period, known, step, owner, by_owner=True)


def _spend(
    environment: Environment, period: Period, known: Known, step: int, owner: str | None, *, by_owner: bool
) -> dict[str, list[SpendPart]]:
    """Return the parts by owner, and under the empty name for all, in one query."""
    ends = [period.first - DAY]
    while ends[-1] < period.last:
        ends.append(min(ends[-1] + step * DAY, period.last))
    days = known.bound(period.before_first - DAY), known.bound(ends[0])
    at: dict[str, dict[date, _Ledger]] = {"": {days[1]: _Ledger()}}
    asked = sorted({known.bound(end) for end in ends[1:]})
    for row in running_sums.spent(environment, days, asked, by_owner=by_owner or owner is not None):
        if owner not in (None, row.owner):
            continue
        ledger = _Ledger(*row[2:])
        for name in {"", row.owner if by_owner else ""}:
            days_of = at.setdefault(name, {})
            days_of[row.day] = days_of.get(row.day, _Ledger()) + ledger
    return {
        name: [_part(first, last, days_of, known) for first, last in pairwise(ends)]
        for name, days_of in sorted(at.items())
    }


@dataclass(frozen=True, slots=True)
class _Ledger:
    """The fields of `running_sums.Spent` that add up."""

    cost: int = 0
    priced: int = 0
    unpriced: int = 0
    covered: int = 0
    tasks: int = 0
    would: float = 0.0

    def __add__(self, other: "_Ledger") -> "_Ledger":
        return _Ledger(*map(add, astuple(self), astuple(other)))

    def __sub__(self, other: "_Ledger") -> "_Ledger":
        return _Ledger(*map(sub, astuple(self), astuple(other)))


def _part(after: date, last: date, at: Mapping[date, _Ledger], known: Known) -> SpendPart:
    first = after + DAY
    if not known.covers(first, last):
        return SpendPart(first, last, None, None, 0.0)
    of = at.get(known.bound(last), _Ledger()) - at.get(known.bound(after), _Ledger())
    saved = round(of.would - of.covered) if of.tasks else None
    spend = None if of.unpriced and not of.priced else of.cost
    return SpendPart(first, last, spend, saved, of.covered / of.cost if of.cost else 0.0)


class WholeFigures(NamedTuple):
    """What the running sums lack: the interval of cost per success, and the cost of mirrored requests (None: none)."""

    cost_per_success_low_nusd: float | None = None
    cost_per_success_high_nusd: float | None = None
    mirror_cost_nusd: int | None = None


def figures_of_the_whole(review: EnvironmentReview) -> WholeFigures:
    """Return the figures of all cells together, from the sums of the days.

    All None if these cover other tasks, because a workload changed its owner in the meantime.
    """
    days = OwnerDay.objects.filter(
        environment=review.environment, day__gte=review.period.first, day__lte=review.period.last
    )
    if review.owner is not None:
        days = days.filter(owner__name=review.owner)
    found = days.aggregate(**columns.from_rows())
    sums = columns.as_sums([found[f"{column}_"] for column in columns.COLUMNS])
    same = (sums.tasks, sums.cost) == (review.whole.now.tasks, review.whole.now.cost)
    if not same:
        return WholeFigures()
    return WholeFigures(*cost_interval(sums), sums.mirror_cost or None)
