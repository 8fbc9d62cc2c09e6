"""The review of an environment, or of one owner in it: whole days, from the running sums. Reads only.

A thousand workloads over 90 days take three rows per endpoint: the sums up to the end, the middle and the beginning.
The figures are as of the job's last turn, and the review says so.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from operator import sub
from typing import Any, NamedTuple, TypeVar

from django.db.models import Max, Min, Q, Sum

from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.review import columns
from rollout_app.review.attribution import CellChange, ModelShift, attribute, joined, model_shift
from rollout_app.review.figures import cost_interval
from rollout_app.review.models import DayOutcomes, OwnerDay, RunningOutcomes, RunningState
from rollout_app.review.rollups import DAY

K = TypeVar("K")
_COLUMNS = columns.IN_ORDER[: columns.IN_ORDER.index("attempts")]  # the leading fields of `OutcomeSums`
MOST_DAYS_BY_DAY = 14  # a longer period is shown by weeks
_ZERO = (0,) * len(_COLUMNS)


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

    @property
    def elapsed(self) -> float:
        """Days of the period that have passed, because today is not over."""
        start = datetime(self.first.year, self.first.month, self.first.day, tzinfo=UTC)
        return max((self.now - start) / DAY, 1 / 24)


@dataclass(frozen=True, slots=True)
class SpendPart:
    """A day or a week of the period.

    `saved`: how much more its tasks would have cost at the earlier cost per task of their endpoint, over the
    `covered` share of the spend; None if no endpoint had a cost then.
    """

    first: date
    last: date
    spend: int
    saved: int | None
    covered: float


@dataclass(frozen=True, slots=True)
class EnvironmentReview:
    """Cells with the largest change first, the same by workload and by owner, and all together.

    `known_since`: the first day with sums. `as_of`: when they were last updated.
    """

    period: Period
    cells: list[CellChange[Place]]
    workloads: list[CellChange[WorkloadName]]
    owners: list[CellChange[str]]
    whole: CellChange[None]
    names: Mapping[int, WorkloadName]
    known_since: date | None
    as_of: datetime | None
    spend: Sequence[SpendPart]


def review_environment(
    environment: Environment, *, days: int, now: datetime, owner: str | None = None
) -> EnvironmentReview:
    """Review an environment. `owner`: a team's name, to include only its workloads."""
    period = Period.ending_today(days, now)
    names = _names(owner)
    now_sums, before_sums = _sums(environment, period, names)
    cells = attribute(now_sums, before_sums)
    workloads = _joined_by(cells, lambda place: names[place.workload])
    owners = _joined_by(workloads, lambda workload: workload.owner)
    state = RunningState.objects.filter(environment=environment).aggregate(at=Max("rolled_at"))
    first = RunningOutcomes.objects.filter(environment=environment).aggregate(first=Min("day"))
    return EnvironmentReview(
        period=period,
        cells=cells,
        workloads=workloads,
        owners=owners,
        whole=joined(None, owners),
        names=names,
        known_since=first["first"],
        as_of=state["at"],
        spend=_spend(environment, period, names, before_sums, 1 if days <= MOST_DAYS_BY_DAY else 7)[""],
    )


def _names(owner: str | None) -> dict[int, WorkloadName]:
    rows = Workload.objects.order_by().values_list("pk", "name", "owner__name", "quality_bar")
    if owner is not None:
        rows = rows.filter(owner__name=owner)
    return {pk: WorkloadName(pk, name, team, float(bar)) for pk, name, team, bar in rows}


def _sums(
    environment: Environment, period: Period, names: Mapping[int, WorkloadName]
) -> tuple[dict[Place, OutcomeSums], dict[Place, OutcomeSums]]:
    """Return sums now and before by place, as differences of the running sums at three days."""
    days = (period.before_first - DAY, period.first - DAY, period.last)
    start, middle, end = (_running(environment, day) for day in days)
    now, before = {}, {}
    for place, sums in end.items():
        if place[0] not in names:
            continue
        then = middle.get(place, _ZERO)
        if sums != then:
            now[Place(*place)] = OutcomeSums(*map(sub, sums, then))
        if (first := start.get(place, _ZERO)) != then:
            before[Place(*place)] = OutcomeSums(*map(sub, then, first))
    return now, before


def _running(environment: Environment, day: date) -> dict[tuple[int, str], tuple[int, ...]]:
    rows = RunningOutcomes.objects.filter(environment=environment, day=day).order_by()
    return {(row[0], row[1]): row[2:] for row in rows.values_list("workload_id", "endpoint", *_COLUMNS)}


def _joined_by(cells: Iterable[CellChange[Any]], key: Callable[[Any], K]) -> list[CellChange[K]]:
    """Combine cells by a key, largest change first."""
    groups: dict[K, list[CellChange[Any]]] = defaultdict(list)
    for cell in cells:
        groups[key(cell.key)].append(cell)
    changes = [joined(name, some) for name, some in groups.items()]
    return sorted(changes, key=lambda change: -change.weight)


# --- only for the rows that are shown --------------------------------------------------------------------


def model_shifts(
    environment: Environment, period: Period, places: Sequence[Place]
) -> dict[Place, ModelShift | None]:
    """Return where the tasks of a few places moved to."""
    days = DayOutcomes.objects.filter(
        environment=environment, workload__in={place.workload for place in places}, day__lte=period.last
    )
    tasks = {
        side: days.filter(condition)
        .order_by()
        .values_list("workload_id", "endpoint", "model")
        .annotate(n=Sum("tasks"))
        for side, condition in (
            ("now", Q(day__gte=period.first)),
            ("before", Q(day__gte=period.before_first, day__lt=period.first)),
        )
    }
    by_place: dict[str, dict[Place, dict[str, int]]] = {side: defaultdict(dict) for side in tasks}
    for side, rows in tasks.items():
        for workload, endpoint, model, n in rows:
            by_place[side][Place(workload, endpoint)][model] = int(n)
    return {place: model_shift(by_place["now"][place], by_place["before"][place]) for place in places}


# --- spend and saving ------------------------------------------------------------------------------------


def spend_by_owner(
    environment: Environment, *, days: int, now: datetime, step: int, owner: str | None = None
) -> tuple[Period, dict[str, list[SpendPart]]]:
    """Return parts of `step` days (1 or 7) by owner; the empty name stands for all owners together."""
    period, names = Period.ending_today(days, now), _names(owner)
    return period, _spend(environment, period, names, _sums(environment, period, names)[1], step)


def _spend(
    environment: Environment,
    period: Period,
    names: Mapping[int, WorkloadName],
    before: Mapping[Place, OutcomeSums],
    step: int,
) -> dict[str, list[SpendPart]]:
    """Return the parts by owner, and under the empty name for all, in one query. They add up to the period's spend."""
    ends = [period.first - DAY]
    while ends[-1] < period.last:
        ends.append(min(ends[-1] + step * DAY, period.last))
    rows = RunningOutcomes.objects.filter(environment=environment, day__in=ends).order_by()
    running: dict[date, dict[Place, tuple[int, int]]] = {end: {} for end in ends}
    for day, workload, endpoint, n, cost in rows.values_list(
        "day", "workload_id", "endpoint", "cost_n", "cost_sum"
    ):
        if workload in names:
            running[day][Place(workload, endpoint)] = (n, cost)
    price = {place: sums.cost_per_task for place, sums in before.items() if sums.cost_n}
    owners = {"": None} | dict.fromkeys(sorted({names[place.workload].owner for place in running[ends[-1]]}))
    found: dict[str, list[SpendPart]] = {owner: [] for owner in owners}
    for first, last in pairwise(ends):
        ledgers = _ledgers(running[first], running[last], price, names)
        for owner, parts in found.items():
            parts.append(ledgers.get(owner, _Ledger()).part(first + DAY, last))
    return found


@dataclass(slots=True)
class _Ledger:
    """In nano-USD: the spend, the part at endpoints with a known earlier cost, and what that part would have
    cost then.
    """

    spend: int = 0
    covered: int = 0
    would: float = 0.0
    known: bool = False

    def add(self, tasks: int, spent: int, was: float | None) -> None:
        self.spend += spent
        if tasks and was is not None:
            self.covered, self.would, self.known = self.covered + spent, self.would + tasks * was, True

    def part(self, first: date, last: date) -> SpendPart:
        saved = round(self.would - self.covered) if self.known else None
        return SpendPart(first, last, self.spend, saved, self.covered / self.spend if self.spend else 0.0)


def _ledgers(
    start: Mapping[Place, tuple[int, int]],
    end: Mapping[Place, tuple[int, int]],
    price: Mapping[Place, float | None],
    names: Mapping[int, WorkloadName],
) -> dict[str, _Ledger]:
    found: dict[str, _Ledger] = defaultdict(_Ledger)
    for place, (n, cost) in end.items():
        n_before, cost_before = start.get(place, (0, 0))
        tasks, spent, was = n - n_before, cost - cost_before, price.get(place)
        found[""].add(tasks, spent, was)
        found[names[place.workload].owner].add(tasks, spent, was)
    return found


def interval_of_the_whole(
    environment: Environment, review: EnvironmentReview, owner: str | None
) -> tuple[float | None, float | None]:
    """Return the interval of cost per success, from the sums that include squares.

    (None, None) if these cover other tasks, because a workload changed its owner in the meantime.
    """
    days = OwnerDay.objects.filter(
        environment=environment, day__gte=review.period.first, day__lte=review.period.last
    )
    if owner is not None:
        days = days.filter(owner__name=owner)
    found = days.aggregate(**columns.from_rows())
    sums = columns.as_sums(found[f"{column}_"] for column in columns.COLUMNS)
    same = (sums.tasks, sums.cost) == (review.whole.now.tasks, review.whole.now.cost)
    return cost_interval(sums) if same else (None, None)
