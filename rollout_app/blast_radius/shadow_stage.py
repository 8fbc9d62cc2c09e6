"""The report of a shadow stage: agreement, mix and cost including the second stage, cheap against strong. Reads only.

Routers compare first choices. A candidate that asks the weak model first, and the strong one for every insufficient
answer, does not move everything to the weak model. The models that are asked in the end are given as bounds
(`projection`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rollout_app.blast_radius.answers import radius_answer
from rollout_app.blast_radius.latency import LatencyProjection, mean, projected_latency
from rollout_app.blast_radius.radius import BlastRadius, radius_of
from rollout_app.blast_radius.rehearsed import RehearsedRoute
from rollout_app.engine.diagnosis.figures import ratio
from rollout_app.engine.evidence import MirrorSums
from rollout_app.engine.stats.paired import difference_interval, exact_p
from rollout_app.models import Rollout


def shadow_stage_answer(rollout: Rollout) -> dict[str, Any]:
    """Return the answer of the API: shares 0 … 1, nano-USD, milliseconds; null: unknown."""
    radius = radius_of(rollout)
    projected, latency = radius_answer(radius), projected_latency(radius)
    mirrored = [route.mirrored for route in radius.rehearsed.values()]
    kept = (
        "basis",
        "tasks_a_day",
        "asked",
        "cost_known_of",
        "cost_a_day_nusd",
        "change_a_day_nusd",
        "differing",
    )
    return {
        "decided": {name: projected[name] for name in kept},
        "by_endpoint": _by(radius, "endpoint", lambda key: key[0]),
        "by_rule": _by(radius, "rule", lambda key: key[1]),
        "mirror": mirror_answer(mirrored),
        "mirror_brake": {name: sum(getattr(one, name) for one in mirrored) for name in ("failed", "braked")},
        "latency_ms": _latencies(latency),
        "latency_change": _change(latency),
        "unknown": projected["unknown"],
    }


def mirror_answer(parts: Iterable[MirrorSums]) -> dict[str, Any] | None:
    """Compare cheap and strong model on the tasks that both ran; None if there are none.

    `cost_nusd` of either arm covers the tasks for which both costs are known; `spent_nusd` is the cost of the second
    run.
    """
    rows = [part.counts for part in parts]
    sums = MirrorSums(*map(sum, zip(*rows, strict=True))) if rows else MirrorSums()
    if not sums.n:
        return None
    lost, won = sums.only_baseline, sums.only_candidate
    interval = difference_interval(sums.n, lost, won)
    priced = bool(sums.candidate_cost_nusd or sums.baseline_cost_nusd)
    return {
        "tasks": sums.n,
        "both": sums.both,
        "only_candidate": won,
        "only_baseline": lost,
        "neither": sums.neither,
        "difference": (won - lost) / sums.n,
        "low": interval and interval[0],
        "high": interval and interval[1],
        "p_value": exact_p(lost, won),
        "candidate_cost_nusd": sums.candidate_cost_nusd if priced else None,
        "baseline_cost_nusd": sums.baseline_cost_nusd if priced else None,
        "spent_nusd": sums.candidate_cost_nusd if priced else None,
    }


def _by(radius: BlastRadius, name: str, key: Callable[[tuple[str, str]], str]) -> list[dict[str, Any]]:
    """Return decisions, agreement, first choices and mirror of each endpoint or rule, most decisions first."""
    parts: dict[str, list[RehearsedRoute]] = defaultdict(list)
    for place, route in radius.rehearsed.items():
        parts[key(place)].append(route)
    rows = [{name: value, **_decided(some)} for value, some in parts.items()]
    return sorted(rows, key=lambda row: (-row["decisions"], row[name]))


def _decided(parts: Iterable[RehearsedRoute]) -> dict[str, Any]:
    rows = list(parts)
    decisions = sum(row.decisions for row in rows)
    routes: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        for pair, n in row.routes.items():
            routes[pair] += n
    return {
        "decisions": decisions,
        "agreement": ratio(sum(row.agreed for row in rows), decisions),
        "evaluation_errors": sum(row.errors for row in rows),
        "first_choices": [
            {"served": served, "candidate": chosen, "share": ratio(n, decisions)}
            for (served, chosen), n in sorted(routes.items(), key=lambda item: (-item[1], item[0]))
        ],
        "mirror": mirror_answer(row.mirrored for row in rows),
    }


def _latencies(found: LatencyProjection) -> dict[str, Mapping[str, float | None]]:
    """Return latencies by model. A model with too few timed tasks is left out."""
    return {
        model: {
            "tasks": timed.total,
            "mean": mean(timed),
            "p50": timed.quantile(0.5),
            "p95": timed.quantile(0.95),
        }
        for model, timed in sorted(found.models.items())
    }


def _change(found: LatencyProjection) -> dict[str, Any]:
    """Return mean milliseconds per task now and with the candidate, with its second stage; null: unknown."""
    return {
        "now_ms": found.now,
        "candidate_ms": found.candidate and found.candidate._asdict(),
        "change_ms": found.change and found.change._asdict(),
        "unmeasured": list(found.unmeasured),
        "sentence": found.sentence,
    }
