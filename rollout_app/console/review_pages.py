"""Pages of the review: an environment or one owner in it, a workload, a rollout. Reads only."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.access import permissions
from controlplane.core import clock
from controlplane.web.display import NONE, percent, points, signed
from controlplane.web.pages import console_view, must, page, person
from policies_app.console.lookups import environment_for, environments_of, workload_for
from policies_app.models import Environment, Workload
from rollout_app import selectors
from rollout_app.console.ahead import realised_of
from rollout_app.engine.diagnosis import Change, PeriodComparison
from rollout_app.engine.diagnosis.figures import total
from rollout_app.evidence_report.words import saved_or_unknown
from rollout_app.review import running_sums
from rollout_app.review.answers import quantiles
from rollout_app.review.attribution import CellChange, Comparable
from rollout_app.review.environments import (
    EnvironmentReview,
    figures_of_the_whole,
    model_shifts,
    review_environment,
    spend_by_time,
)
from rollout_app.review.figures import breakdown, cost_interval, figures
from rollout_app.review.reading import grouped
from rollout_app.review.rollouts import review_rollout
from rollout_app.review.words import change_sentence
from rollout_app.review.workloads import WorkloadReview, review_workload

LENGTHS = (1, 7, 30, 90)
_SENTENCES = 8  # largest changes, as sentences
_ROWS = 50  # per table
_BREAKDOWNS = (("model", "Model"), ("rule", "Rule"), ("version", "Version"))


@console_view("GET")
def environment_review(request: HttpRequest, name: str = "") -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    places = environments_of(request)
    if not (name or places):
        return page(request, "review/empty.html", {}, title="Review")
    environment, owner = environment_for(request, name or places[0].name), request.GET.get("owner") or None
    review = review_environment(environment, days=_days(request), now=clock.now(), owner=owner)
    context = _environment_context(environment, review) | {"environments": places, "owner": owner}
    return page(request, "review/environment.html", context, title="Review")


@console_view("GET")
def workload_review(request: HttpRequest, name: str, workload: str) -> HttpResponse:
    environment, found = environment_for(request, name), workload_for(request, workload)
    length = timedelta(days=_days(request))
    context = _workload_context(
        environment, found, review_workload(environment, found, end=clock.now(), length=length)
    )
    crumbs = [("Review", reverse("console:review_of", args=[name]))]
    return page(request, "review/workload.html", context, title=workload, crumbs=crumbs)


@console_view("GET")
def rollout_review(request: HttpRequest, pk: UUID) -> HttpResponse:
    rollout = selectors.rollout_for(person(request), pk)
    review = review_rollout(rollout)
    context: dict[str, Any] = {"rollout": rollout, "review": review, "realised": realised_of(rollout)}
    if review is not None:
        sides = (review.candidate, review.baseline)
        context |= {
            "candidate": figures(total(sides[0].values())),
            "baseline": figures(total(sides[1].values())),
            "changes": change_rows(review.comparison),
            "saved": review.saved and saved_or_unknown(review.saved),
            "endpoints": [
                (cell, Comparable.of(cell, partial=False).known(cell.effects))
                for cell in review.endpoints[:_ROWS]
            ],
            "breakdowns": _breakdowns(sides, _BREAKDOWNS[:2]),
        }
    crumbs = [("Rollouts", reverse("console:rollouts")), ("Rollout", reverse("console:rollout", args=[pk]))]
    return page(request, "review/rollout.html", context, title="Review", crumbs=crumbs)


def _days(request: HttpRequest) -> int:
    text = request.GET.get("days", "")
    return int(text) if text in map(str, LENGTHS) else 7


# --- what the templates show -----------------------------------------------------------------------------


def _environment_context(environment: Environment, review: EnvironmentReview) -> dict[str, Any]:
    since = running_sums.begin_of_traffic(review.environment, review.known.first, review.period.now)
    elapsed, first = review.period.elapsed(since), review.cells[:_SENTENCES]
    shifts = model_shifts(review, [cell.key for cell in first])
    return {
        "environment": environment,
        "review": review,
        "lengths": LENGTHS,
        "days": review.period.days,
        "now": figures(review.whole.now),
        "before": figures(review.whole.before),
        "interval": figures_of_the_whole(review),
        "spend": spend_by_time(review),
        "sentences": [
            change_sentence(
                f"{review.names[cell.key.workload].name} {cell.key.endpoint}".strip(),
                review.names[cell.key.workload].owner,
                cell,
                span=elapsed,
                bar=review.names[cell.key.workload].bar,
                shift=shifts[cell.key],
            )
            for cell in first
        ],
        "owners": review.owners[:_ROWS],
        "effects": review.comparable.known(review.whole.effects),
        "workloads": [(cell, review.comparable.known(cell.effects)) for cell in review.workloads[:_ROWS]],
        "partial": review.partial,
    }


def _workload_context(environment: Environment, workload: Workload, review: WorkloadReview) -> dict[str, Any]:
    bar = float(workload.quality_bar)
    return {
        "environment": environment,
        "workload": workload,
        "review": review,
        "lengths": LENGTHS,
        "days": round(review.days),
        "now": figures(review.whole.now),
        "before": figures(review.whole.before),
        "interval": cost_interval(review.whole.now),
        "changes": change_rows(review.comparison),
        "endpoints": [
            (
                cell,
                _sentence(cell, workload, review, bar),
                _p95(review, cell.key),
                review.comparable.known(cell.effects),
            )
            for cell in review.endpoints[:_ROWS]
        ],
        "breakdowns": _breakdowns((review.now, review.before), _BREAKDOWNS),
        "partial": not review.comparable.whole,
    }


def _sentence(cell: CellChange[str], workload: Workload, review: WorkloadReview, bar: float) -> str:
    name, shift = cell.key or "No endpoint", review.shifts[cell.key]
    return change_sentence(name, workload.owner.name, cell, span=review.elapsed, bar=bar, shift=shift)


def _p95(review: WorkloadReview, endpoint: str) -> float | None:
    histogram = review.latencies[0].get(endpoint)
    return None if histogram is None else quantiles(histogram)["p95"]


def _breakdowns(sides: Sequence[Any], keys: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return tables by key; their rows have `name`, `now` and `before`."""
    tables = []
    for key, title in keys:
        rows = breakdown(key, *(grouped(side, lambda route, key=key: getattr(route, key)) for side in sides))  # type: ignore[misc]
        tables.append({"title": title, "rows": [row | {"name": row[key]} for row in rows[:_ROWS]]})
    return tables


def change_rows(comparison: PeriodComparison) -> list[tuple[str, str, str]]:
    """Return (figure, change, interval), at one mix or in the same minutes."""
    return [
        ("Cost per success", *_relative(comparison.cost_per_success)),
        ("Cost per task", *_relative(comparison.cost_per_task)),
        ("Failures", *_difference(comparison.failures)),
        ("Retries", *_difference(comparison.retries)),
    ]


def _relative(change: Change | None) -> tuple[str, str]:
    if change is None:
        return NONE, "unknown"
    estimate, low, high = (signed(percent(abs(x)), x) for x in (change.estimate, change.low, change.high))
    return estimate, f"between {low} and {high}"


def _difference(change: Change | None) -> tuple[str, str]:
    if change is None:
        return NONE, "unknown"
    return points(change.estimate), f"between {points(change.low)} and {points(change.high)}"


urlpatterns = [
    path("review/", environment_review, name="review"),
    path("review/<slug:name>/", environment_review, name="review_of"),
    path("review/<slug:name>/<slug:workload>/", workload_review, name="workload_review"),
    path("rollouts/<uuid:pk>/review/", rollout_review, name="rollout_review"),
]
