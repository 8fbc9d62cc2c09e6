"""The diagnosis of a workload or a rollout: gathers what the engine's diagnosis asks for. Reads only."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.core import clock
from policies_app.models import Model, PolicyVersion, Workload
from rollout_app.engine.diagnosis import (
    Diagnosis,
    ModelRecord,
    OutcomeSums,
    PeriodComparison,
    PolicyFigures,
    RouteCost,
    compare_arms,
    compare_periods,
    cost_if_always,
    diagnose,
)
from rollout_app.engine.diagnosis.compare import Cells
from rollout_app.engine.diagnosis.figures import total
from rollout_app.engine.diagnosis.models import recorded_success, strongest
from rollout_app.models import Rollout
from rollout_app.review import reading
from rollout_app.review.reading import Route, Routes, grouped

PARTS = 6  # of the time, in which a trend is looked for
_HOURLY_FROM = timedelta(hours=3)  # shorter rollouts are compared minute by minute
IN_THE_SAME_MINUTES = "the baseline in the same minutes"


def diagnose_rollout(rollout: Rollout) -> Diagnosis:
    """What the candidate does, against the baseline in the same minutes of the same stage."""
    start, end = rollout.started_at or rollout.created_at, rollout.ended_at or clock.now()
    environment, workload = rollout.environment, rollout.workload
    # A task belongs to the minute in which it was decided: the first one began before the rollout did.
    start, end = start.replace(second=0, microsecond=0), end + timedelta(minutes=1)
    found = reading.routes(environment, workload, start, end, rollout=str(rollout.pk))
    ours = _served({route: sums for route, sums in found.items() if route.arm == "candidate"})
    slots = reading.arms_by_time(
        environment, workload, start, end, str(rollout.pk), hourly=end - start > _HOURLY_FROM
    )
    pairs = [
        (arms["candidate"], arms["baseline"]) for (stage, _), arms in sorted(slots.items()) if len(arms) == 2
    ]
    deff = float((rollout.reference or {}).get("deff", 1.0))
    return _diagnosed(
        rollout.candidate, workload, ours, found, compare_arms(pairs, deff), IN_THE_SAME_MINUTES, deff=deff
    )


def diagnose_workload(
    version: PolicyVersion,
    workload: Workload,
    now: Routes,
    before: Routes,
    parts: Iterable[Routes] = (),
    against: str = "the time before",
) -> Diagnosis:
    """What `version` does now, against the time before, at one mix of endpoints."""
    ours = _served({route: sums for route, sums in now.items() if route.version == version.number})
    comparison = compare_periods(*cells_of(ours, before))
    windows = [
        grouped({route: sums for route, sums in part.items() if route.version == version.number}, _endpoint)
        for part in parts
    ]
    return _diagnosed(
        version, workload, ours, {**before, **now}, comparison, against, windows=[w for w in windows if w]
    )


def cells_of(now: Routes, before: Routes) -> tuple[Cells, Cells]:
    """Both periods by what is the same in both: endpoint and rule; the endpoint alone where the policy changed.

    What a new policy's rules send elsewhere is what it does, not a mix that it finds.
    """
    same = {route.version for route in now} == {route.version for route in before}
    key: Callable[[Route], Any] = _endpoint_and_rule if same else _endpoint
    return grouped(now, key), grouped(before, key)


def _diagnosed(
    version: PolicyVersion,
    workload: Workload,
    ours: Routes,
    all_routes: Routes,
    comparison: PeriodComparison,
    against: str,
    *,
    windows: Iterable[Cells] = (),
    deff: float = 1.0,
) -> Diagnosis:
    models = _models(version, ours, all_routes)
    best = strongest(models)
    return diagnose(
        PolicyFigures(
            policy=total(ours.values()),
            quality_bar=float(workload.quality_bar),
            comparison=comparison,
            against=against,
            strong_tasks=sum(
                sums.tasks for route, sums in ours.items() if best and route.model == best.alias
            ),
            models=models,
            windows=list(windows),
            sampled=workload.success_signal != Workload.SuccessSignal.ACCURACY_CHECK,
            deff=deff,
        )
    )


def _served(found: Routes) -> Routes:
    """Without what was only shadowed: a candidate's shadow stage serves nothing."""
    return {route: sums for route, sums in found.items() if sums.tasks}


# --- models ----------------------------------------------------------------------------------------------


def _models(version: PolicyVersion, ours: Routes, all_routes: Routes) -> list[ModelRecord]:
    """The policy's models in its rank, weakest first, with what is known of each."""
    document = version.document
    names = {alias: model["model"] for alias, model in document["models"].items()}
    catalogue = {
        model.name: model for model in Model.objects.filter(name__in=names.values()).only(
            "name", "input_nusd_per_mtok", "output_nusd_per_mtok", "quality"
        )
    }  # fmt: skip
    prices = {
        alias: (catalogue[name].input_nusd_per_mtok, catalogue[name].output_nusd_per_mtok)
        for alias, name in names.items()
        if name in catalogue
    }
    chosen = {rule["id"]: rule["use"] for rule in document.get("rules", ())} | {
        "default": document["default"]
    }
    costs = [
        RouteCost(chosen.get(route.rule, route.model), route.model, sums.cost)
        for route, sums in ours.items()
        if sums.cost
    ]
    success = recorded_success(_comparable(version, chosen, all_routes))
    return [
        ModelRecord(
            alias,
            success.get(alias),
            catalogue[names[alias]].quality if names[alias] in catalogue else None,
            cost_if_always(alias, costs, prices),
        )
        for alias in document.get("rank") or list(names)
    ]


def _comparable(
    version: PolicyVersion, chosen: Mapping[str, str], found: Routes
) -> dict[str, dict[tuple[str, str], OutcomeSums]]:
    """Each model's tasks by endpoint and rule, where it answered at once.

    Tasks of another rule are other tasks, and an escalated task is one that the first model failed: neither
    compares models.
    """
    cells: dict[str, dict[tuple[str, str], OutcomeSums]] = defaultdict(dict)
    for route, sums in found.items():
        if sums.escalations or sums.fallbacks:
            continue
        if route.version == version.number and chosen.get(route.rule, route.model) != route.model:
            continue
        cell = _endpoint_and_rule(route)
        cells[route.model][cell] = cells[route.model].get(cell, OutcomeSums()) + sums
    return cells


def _endpoint(route: Route) -> str:
    return route.endpoint


def _endpoint_and_rule(route: Route) -> tuple[str, str]:
    return route.endpoint, route.rule


def since(length: timedelta) -> str:
    """The time before a window of this length, in words."""
    days = length / timedelta(days=1)
    return f"the {days:g} days before" if days > 1 else "the day before" if days == 1 else "the time before"


def window(end: datetime, length: timedelta) -> tuple[datetime, datetime, datetime]:
    """(start of the time before, start, end)."""
    return end - 2 * length, end - length, end
