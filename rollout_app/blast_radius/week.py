"""The traffic of the seven days before a candidate moves any of it, as the served policy routed it. Reads only."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from policies_app.catalogue.usage import models_of
from policies_app.models import Environment, Model, PolicyVersion, Workload
from rollout_app.blast_radius.projection import Cell, PolicyShape, Prices, Seen
from rollout_app.blast_radius.routing import DEFAULT
from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.engine.diagnosis.figures import NOTHING, total
from rollout_app.review import reading
from rollout_app.review.models import HourState
from rollout_app.review.reading import Route, Routes
from rollout_app.review.running_sums import first_minute
from rollout_app.review.span import TrafficSpan

SPAN = timedelta(days=7)
_HOUR = timedelta(hours=1)
PIN = "pin"  # the rule of a task that was answered under a pin, which no policy decided
LEAST_TASKS = 100  # tasks of the baseline's own version; with fewer, tasks of all versions are used
CellKey = tuple[int, str, str]  # version, endpoint, rule


@dataclass(frozen=True, slots=True)
class Week:
    """The traffic of a week. `span`: the time with visible traffic, up to 7 days. `traffic`: tasks by endpoint, of all
    versions, per day; for less than a day, not scaled.

    `cells`: of the baseline's own version, or of all versions if it has had hardly any tasks (`own_version` is
    false). `others`: share of the decided tasks that other versions served. `pinned`: share of all tasks that ran
    under a pin. They count as traffic, but show no policy's choice. `versions`: all that served, by number.
    """

    start: datetime
    end: datetime
    span: TrafficSpan
    traffic: Mapping[str, float]
    cells: Mapping[CellKey, Cell]
    own_version: bool
    others: float
    pinned: float
    versions: Mapping[int, PolicyVersion]
    prices: Prices
    routes: Routes

    @property
    def tasks(self) -> float:
        return sum(self.traffic.values())


def read_week(
    environment: Environment,
    workload: Workload,
    baseline: PolicyVersion,
    candidate: PolicyVersion,
    end: datetime,
) -> Week:
    """Read the traffic before `end`."""
    start = end - SPAN
    found = reading.routes(environment, workload, start, end)
    routes = {route: sums for route, sums in found.items() if sums.tasks}
    span = _span(environment, workload, start, end)
    decided = {route: sums for route, sums in routes.items() if route.rule != PIN}
    own = {route: sums for route, sums in decided.items() if route.version == baseline.number}
    tasks, of_decided, of_own = (total(some.values()).tasks for some in (routes, decided, own))
    versions = _versions(workload, routes, baseline, candidate)
    return Week(
        start=start,
        end=end,
        span=span,
        traffic={
            name: sums.tasks / span.divisor for name, sums in reading.grouped(routes, _endpoint).items()
        },
        cells=_cells(own if of_own >= LEAST_TASKS else decided, versions),
        own_version=of_own >= LEAST_TASKS,
        others=1 - of_own / of_decided if of_decided else 0.0,
        pinned=1 - of_decided / tasks if tasks else 0.0,
        versions=versions,
        prices=_prices(versions.values()),
        routes=routes,
    )


def _endpoint(route: Route) -> str:
    return route.endpoint


def _span(environment: Environment, workload: Workload, start: datetime, end: datetime) -> TrafficSpan:
    """Return the time with visible traffic: a new workload has no whole week yet."""
    hours = HourState.objects.filter(
        environment=environment, workload=workload, hour__gte=start, hour__lt=end
    )
    first = hours.order_by("hour").values_list("hour", flat=True).first()
    if first is None or first <= start:
        return TrafficSpan.between(start, end)
    begin = first_minute(environment, workload, minute__gte=first, minute__lt=first + _HOUR)
    return TrafficSpan.between(begin or first, end)


def _versions(
    workload: Workload, week: Routes, baseline: PolicyVersion, candidate: PolicyVersion
) -> dict[int, PolicyVersion]:
    known = {baseline.number: baseline, candidate.number: candidate}
    numbers = {route.version for route in week} - known.keys()
    rows = workload.versions.filter(number__in=numbers).defer("canonical") if numbers else ()
    return known | {version.number: version for version in rows}


def _prices(versions: Iterable[PolicyVersion]) -> Prices:
    """Return the prices of models that have both."""
    names = set().union(*(models_of(version.document) for version in versions))
    rows = Model.objects.filter(name__in=names).values_list(
        "name", "input_nusd_per_mtok", "output_nusd_per_mtok"
    )
    return {name: (ours, theirs) for name, ours, theirs in rows if ours is not None and theirs is not None}


def first_alias(document: Mapping[str, Any], rule: str, answered: str) -> str:
    """Return the alias that the policy asks first by this rule; for an unknown rule (pin, latch), the one that
    answered.
    """
    if rule == DEFAULT:
        return str(document["default"])
    return next((str(each["use"]) for each in document.get("rules", ()) if each["id"] == rule), answered)


def _cells(found: Routes, versions: Mapping[int, PolicyVersion]) -> dict[tuple[int, str, str], Cell]:
    """Return the cells by version, endpoint and rule."""
    whole: dict[tuple[int, str, str], OutcomeSums] = defaultdict(OutcomeSums)
    alone: dict[tuple[int, str, str], OutcomeSums] = defaultdict(OutcomeSums)
    first: dict[tuple[int, str, str], str] = {}
    for route, sums in found.items():
        if route.version not in versions:
            continue
        key = (route.version, route.endpoint, route.rule)
        first.setdefault(key, first_alias(versions[route.version].document, route.rule, route.model))
        whole[key] += sums
        if route.model == first[key] and not sums.escalations:
            alone[key] += sums
    cells = {}
    for key, sums in whole.items():
        entry = versions[key[0]].document["models"].get(first[key], {"model": first[key]})
        params = entry.get("params") or {}
        cells[key] = Cell(key[1], key[2], entry["model"], params, sums, alone.get(key, NOTHING))
    return cells


def seen_escalations(week: Week, candidate: PolicyShape) -> dict[tuple[str | None, str], Seen]:
    """Count escalations of tasks by first model, under versions that continue as the candidate would."""
    counts: dict[tuple[str | None, str], list[int]] = defaultdict(lambda: [0, 0])
    alike = {
        number for number, v in week.versions.items() if PolicyShape.of(v.document).second == candidate.second
    }
    for route, sums in week.routes.items():
        if route.version not in alike or route.rule == PIN:  # a pinned task is never escalated
            continue
        document = week.versions[route.version].document
        entry = document["models"].get(first_alias(document, route.rule, route.model))
        for key in ((route.endpoint, entry["model"]), (None, entry["model"])) if entry else ():
            counts[key][0] += sums.tasks
            counts[key][1] += sums.escalations
    return {key: Seen(*both) for key, both in counts.items()}
