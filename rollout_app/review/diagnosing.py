"""Gather the input of the engine's diagnosis from the sums of a period. Reads only."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from policies_app.models import Model, PolicyVersion, Workload
from rollout_app.engine.diagnosis import (
    Diagnosis,
    ModelRecord,
    OutcomeSums,
    PeriodComparison,
    PolicyFigures,
    RouteCost,
    compare_periods,
    cost_if_always,
    diagnose,
)
from rollout_app.engine.diagnosis.compare import Cells
from rollout_app.engine.diagnosis.figures import total
from rollout_app.engine.diagnosis.models import recorded_success, strongest
from rollout_app.review.reading import Route, Routes, added, grouped

PARTS = 6  # parts of the period in which to look for a trend
IN_THE_SAME_MINUTES = "the baseline in the same minutes"


def diagnose_workload(
    version: PolicyVersion,
    workload: Workload,
    now: Routes,
    before: Routes,
    parts: Iterable[Routes] = (),
    against: str = "the time before",
) -> Diagnosis:
    """Diagnose what `version` does now, compared with the period before, at one mix of endpoints."""
    ours = _served({route: sums for route, sums in now.items() if route.version == version.number})
    comparison = compare_periods(*cells_of(ours, before))
    windows = [
        grouped({route: sums for route, sums in part.items() if route.version == version.number}, _endpoint)
        for part in parts
    ]
    return diagnosed(
        version, workload, ours, added([before, now]), comparison, against, windows=[w for w in windows if w]
    )


def cells_of(now: Routes, before: Routes) -> tuple[Cells, Cells]:
    """Return both periods by endpoint and rule, or by endpoint alone if the policy changed.

    A new policy's rules route tasks differently; that is its own behaviour, not a mix that it was given.
    """
    same = {route.version for route in now} == {route.version for route in before}
    key: Callable[[Route], Any] = _endpoint_and_rule if same else _endpoint
    return grouped(now, key), grouped(before, key)


def diagnosed(
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
    """Diagnose `ours`, the version's routes. `all_routes` adds further tasks that help to compare models."""
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
    """Drop routes that were only shadowed: a candidate's shadow stage serves nothing."""
    return {route: sums for route, sums in found.items() if sums.tasks}


# --- models ----------------------------------------------------------------------------------------------


def _models(version: PolicyVersion, ours: Routes, all_routes: Routes) -> list[ModelRecord]:
    """Return the policy's models in its rank, weakest first, with the facts known about each."""
    document = version.document
    names = {alias: model["model"] for alias, model in document["models"].items()}
    catalogue = {
        model.name: model for model in Model.objects.filter(name__in=names.values()).only(
            "name", "input_nusd_per_mtok", "output_nusd_per_mtok", "quality"
        )
    }  # fmt: skip
    prices = {
        alias: (model.input_nusd_per_mtok, model.output_nusd_per_mtok)
        for alias, name in names.items()
        if (model := catalogue.get(name))
        and model.input_nusd_per_mtok is not None
        and model.output_nusd_per_mtok is not None
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
    """Return each model's tasks by endpoint and rule, if it answered on the first attempt.

    Tasks of different rules are different tasks, and an escalated task is one that the first model failed: neither
    can be used to compare models. Where some tasks were escalated, those that were not are the ones of which the first
    model was sure: it would look better than it is.
    """
    cells: dict[str, dict[tuple[str, str], OutcomeSums]] = defaultdict(dict)
    escalated = {
        (route.version, *_endpoint_and_rule(route)) for route, sums in found.items() if sums.escalations
    }
    for route, sums in found.items():
        if (route.version, *_endpoint_and_rule(route)) in escalated or sums.fallbacks:
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
