"""The blast radius as the API returns it: nano-USD and tasks per day, shares 0 … 1; null: unknown. Pure."""

from typing import Any

from rollout_app.blast_radius.projection import Bounds, Projection
from rollout_app.blast_radius.radius import BlastRadius, EndpointRadius
from rollout_app.blast_radius.rehearsed import DifferingShare
from rollout_app.blast_radius.words import endpoint_sentence, headline, unknowns
from rollout_app.engine.diagnosis.figures import ratio
from rollout_app.review.span import TrafficSpan


def radius_answer(radius: BlastRadius) -> dict[str, Any]:
    """Return the whole and each endpoint, largest cost first."""
    week, owner = radius.week, radius.workload.owner.name
    return {
        "environment": radius.environment.name,
        "workload": radius.workload.name,
        "owner": owner,
        "baseline": radius.baseline.number,
        "candidate": radius.candidate.number,
        "start": week.start,
        "end": week.end,
        "days_seen": week.span.days,
        "basis": radius.basis,
        "sentence": headline(radius),
        "shadow_decisions": radius.decisions,
        "tasks_a_day": week.tasks if week.span.is_long else None,
        **_projected(radius.whole, a_day=week.span.is_long),
        "differing": _differing(radius.differing),
        "endpoints": [_endpoint(each, owner, week.span) for each in radius.endpoints],
        "pinned": radius.pinned or None,
        "notices": [notice.sentence for notice in radius.notices],
        "unknown": unknowns(radius),
    }


def _endpoint(radius: EndpointRadius, owner: str, span: TrafficSpan) -> dict[str, Any]:
    return {
        "endpoint": radius.endpoint,
        "owner": owner,
        "sentence": endpoint_sentence(radius, owner, span.words),
        "tasks_a_day": radius.traffic if span.is_long else None,
        **_projected(radius.projection, a_day=span.is_long),
        "differing": _differing(radius.differing),
    }


def _projected(projection: Projection, *, a_day: bool) -> dict[str, Any]:
    """`a_day`: whether counts and costs are per day. Those of a shorter time are only in the sentences."""
    known = bool(projection.tasks)
    return {
        "moved": _share(projection.moved, projection.tasks) if known else None,
        "moves": [
            {"from": before, "to": after, **_share(tasks, projection.tasks)}
            for (before, after), tasks in projection.moves.items()
        ],
        "asked": {model: _bounds(tasks, projection.tasks) for model, tasks in projection.asked.items()},
        "other_parameters": ratio(projection.reparametrised, projection.tasks),
        "other_second_stage": ratio(projection.second_stage, projection.tasks),
        "cost_known_of": ratio(projection.covered, projection.tasks),
        "cost_a_day_nusd": projection.cost if projection.covered and a_day else None,
        "change_a_day_nusd": _bounds(projection.change, 1) if projection.covered and a_day else None,
    }


def _share(tasks: tuple[float, float], of: float) -> dict[str, float | None]:
    return {"low": ratio(tasks[0], of), "high": ratio(tasks[1], of)}


def _bounds(bounds: Bounds, of: float) -> dict[str, float | None]:
    expected = None if bounds.expected is None else bounds.expected / of
    return {"low": bounds.low / of, "high": bounds.high / of, "expected": expected}


def _differing(differing: DifferingShare | None) -> dict[str, Any] | None:
    if differing is None:
        return None
    return {"known_of": differing.known, "share": differing.share}
