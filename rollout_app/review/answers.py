"""The reviews as the API returns them and as rows for a spreadsheet. Nano-USD, shares 0 … 1; null: unknown."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from operator import attrgetter
from typing import Any

from pointsman.reporting.histogram import Histogram
from policies_app.models import Environment, Workload
from rollout_app.engine.diagnosis import Change, PeriodComparison
from rollout_app.engine.diagnosis.figures import total
from rollout_app.models import Rollout
from rollout_app.review.attribution import CellChange, Comparable, KnownEffects
from rollout_app.review.environments import EnvironmentReview, Period, SpendPart, WholeFigures
from rollout_app.review.figures import MOST_ROWS, breakdown, figures
from rollout_app.review.reading import grouped
from rollout_app.review.rollouts import RolloutReview
from rollout_app.review.words import change_sentence
from rollout_app.review.workloads import WorkloadReview

BREAKDOWNS = ("endpoint", "model", "arm", "version", "rule")


def workload_answer(environment: Environment, workload: Workload, review: WorkloadReview) -> dict[str, Any]:
    return {
        "environment": environment.name,
        "workload": workload.name,
        "owner": workload.owner.name,
        "quality_bar": float(workload.quality_bar),
        "start": review.start,
        "end": review.end,
        "now": figures(review.whole.now),
        "before": figures(review.whole.before),
        "effects": _effects(review.comparable.known(review.whole.effects)),
        "changes": _changes(review.comparison),
        "what_changed": [
            {
                "endpoint": cell.key,
                "effects": _effects(review.comparable.known(cell.effects)),
                "sentence": change_sentence(
                    cell.key or "no endpoint",
                    workload.owner.name,
                    cell,
                    span=review.elapsed,
                    bar=float(workload.quality_bar),
                    shift=review.shifts[cell.key],
                ),
            }
            for cell in review.endpoints[:MOST_ROWS]
        ],
        **{
            f"by_{key}": breakdown(
                key, *(grouped(side, attrgetter(key)) for side in (review.now, review.before))
            )
            for key in BREAKDOWNS
        },
        "latency_ms": {
            side: {endpoint: quantiles(histogram) for endpoint, histogram in sorted(found.items())}
            for side, found in zip(("now", "before"), review.latencies, strict=True)
        },
        "diagnosis": asdict(review.diagnosis),
    }


def environment_answer(
    review: EnvironmentReview,
    whole: WholeFigures,
    spend: Iterable[SpendPart],
) -> dict[str, Any]:
    return {
        "environment": review.environment.name,
        "owner": review.owner,
        "first_day": review.period.first,
        "last_day": review.period.last,
        "days": review.period.days,
        "as_of": review.known.as_of,
        "known_since": review.known.first,
        "now": figures(review.whole.now) | whole._asdict(),
        "before": figures(review.whole.before),
        "effects": _effects(review.comparable.known(review.whole.effects)),
        "by_time": [_spent(part) for part in spend],
        "by_owner": [
            _cell({"owner": cell.key}, cell, review.comparable) for cell in review.owners[:MOST_ROWS]
        ],
        "by_workload": [
            _cell(
                {"workload": cell.key.name, "owner": cell.key.owner, "quality_bar": cell.key.bar},
                cell,
                review.comparable,
            )
            for cell in review.workloads[:MOST_ROWS]
        ],
        "by_endpoint": [
            _cell(
                {
                    "workload": review.names[cell.key.workload].name,
                    "owner": review.names[cell.key.workload].owner,
                    "endpoint": cell.key.endpoint,
                },
                cell,
                review.comparable,
            )
            for cell in review.cells[:MOST_ROWS]
        ],
    }


def _spent(part: SpendPart) -> dict[str, Any]:
    return {
        "first_day": part.first,
        "last_day": part.last,
        "spend_nusd": part.spend,
        "saved_nusd": part.saved,
        "saving_known_of": part.covered,
    }


def spend_answer(
    environment: Environment, period: Period, by: str, parts: Mapping[str, Iterable[SpendPart]]
) -> dict[str, Any]:
    """Return the answer. `parts` by owner; the empty name stands for all of them."""
    return {
        "environment": environment.name,
        "by": by,
        "first_day": period.first,
        "last_day": period.last,
        "by_time": [_spent(part) for part in parts[""]],
        "by_owner": [
            {"owner": owner, **_spent(part)} for owner, some in parts.items() if owner for part in some
        ],
    }


def rollout_answer(rollout: Rollout, review: RolloutReview) -> dict[str, Any]:
    ours, theirs = total(review.candidate.values()), total(review.baseline.values())
    return {
        "rollout": str(rollout.pk),
        "environment": rollout.environment.name,
        "workload": rollout.workload.name,
        "owner": rollout.workload.owner.name,
        "quality_bar": float(rollout.workload.quality_bar),
        "start": review.start,
        "end": review.end,
        "candidate": figures(ours),
        "baseline": figures(theirs),
        "changes": _changes(review.comparison),
        "by_endpoint": [
            _cell({"endpoint": cell.key}, cell, Comparable.of(cell, partial=False))
            for cell in review.endpoints[:MOST_ROWS]
        ],
        **{
            f"by_{key}": breakdown(
                key, *(grouped(side, attrgetter(key)) for side in (review.candidate, review.baseline))
            )
            for key in ("model", "rule")
        },
        "workload_before": figures(review.before),
        "workload_during": figures(review.during),
        "workload_after": None if review.after is None else figures(review.after),
        "saved_nusd": _change(review.saved),
        "mirror_cost_nusd": review.mirror_cost or None,  # as in `figures`
        "diagnosis": asdict(review.diagnosis),
    }


def quantiles(histogram: Histogram) -> dict[str, float | None]:
    return {name: histogram.quantile(q) for name, q in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}


def _cell(names: Mapping[str, Any], cell: CellChange[Any], comparable: Comparable) -> dict[str, Any]:
    return {
        **names,
        "now": figures(cell.now),
        "before": figures(cell.before),
        "effects": _effects(comparable.known(cell.effects)),
    }


def _effects(effects: KnownEffects) -> dict[str, int | None]:
    """Return the reasons of the change of cost; the four effects add up to the total. None: unknown."""
    return {
        "total_nusd": effects.total,
        "volume_nusd": effects.volume,
        "mix_nusd": effects.mix,
        "coverage_nusd": effects.coverage,
        "behaviour_nusd": effects.behaviour,
    }


def _changes(comparison: PeriodComparison) -> dict[str, Any]:
    """Return changes at one mix or in the same minutes, with intervals; `mix` is the part that the traffic shift
    explains.
    """
    return {
        "cost_per_success": _change(comparison.cost_per_success),
        "cost_per_task": _change(comparison.cost_per_task),
        "failures": _change(comparison.failures),
        "retries": _change(comparison.retries),
        "mix": comparison.mix,
        "unadjusted": comparison.raw,
        "covered": comparison.covered,
    }


def _change(change: Change | None) -> dict[str, float] | None:
    return None if change is None else asdict(change)


# --- for a spreadsheet -----------------------------------------------------------------------------------

KEYS = ("endpoint", "workload", "owner", "model", "arm", "version", "rule")


SPENT = ("first_day", "last_day", "spend_nusd", "saved_nusd", "saving_known_of")
EXTRA = (*SPENT, "side", "figure", "estimate", "low", "high", "p50_ms", "p95_ms", "p99_ms", "sentence")


def table(answer: Mapping[str, Any]) -> Iterable[list[Any]]:
    """Yield rows of any of the answers; the first names the columns.

    One row for the whole, one for each part, and one for each further figure; `level` says which.
    """
    sides = ("candidate", "baseline") if "candidate" in answer else ("now", "before")
    names = tuple(answer[sides[0]])
    effects = ("total_nusd", "volume_nusd", "mix_nusd", "coverage_nusd", "behaviour_nusd")
    figures = [
        *(f"{side}_{name}" for side in sides for name in names),
        *(f"effect_{name}" for name in effects),
    ]
    yield ["level", *KEYS, *figures, *EXTRA]
    nothing = [None] * len(EXTRA)
    yield [*_line("total", answer, sides, names, effects), *nothing]
    for level in KEYS:
        for row in answer.get(f"by_{level}", ()):
            yield [*_line(level, row, ("now", "before"), names, effects), *nothing]
    for row in _further_rows(answer):
        keys = [_text(row.get(key, "")) for key in KEYS]
        yield [row["level"], *keys, *[None] * len(figures), *(_text(row.get(name)) for name in EXTRA)]


def spend_table(answer: Mapping[str, Any]) -> Iterable[list[Any]]:
    """Yield rows of `spend_answer`; an empty owner stands for all of them together."""
    yield ["owner", *SPENT]
    for row in (*answer["by_time"], *answer["by_owner"]):
        yield [_text(row.get("owner", "")), *(row[name] for name in SPENT)]


def _further_rows(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the further figures of the answers: spend by time, changes with intervals, latency, sentences."""
    for part in answer.get("by_time", ()):
        yield {"level": "time", **part}
    changes = {**answer.get("changes", {}), "saved_nusd": answer.get("saved_nusd")}
    for figure, change in changes.items():
        if isinstance(change, Mapping):
            yield {"level": "change", "figure": figure, **change}
    for side, endpoints in answer.get("latency_ms", {}).items():
        for endpoint, at in endpoints.items():
            yield {
                "level": "latency",
                "endpoint": endpoint,
                "side": side,
                **{f"{q}_ms": ms for q, ms in at.items()},
            }
    for row in answer.get("what_changed", ()):
        yield {"level": "what_changed", "endpoint": row["endpoint"], "sentence": row["sentence"]}
    if answer.get("mirror_cost_nusd") is not None:
        yield {"level": "figure", "figure": "mirror_cost_nusd", "estimate": answer["mirror_cost_nusd"]}
    if "diagnosis" in answer:
        found = answer["diagnosis"]
        yield {"level": "diagnosis", "figure": found["code"], "sentence": found["sentence"]}


def _line(
    level: str, row: Mapping[str, Any], sides: tuple[str, str], names: Iterable[str], effects: Iterable[str]
) -> list[Any]:
    keys = [_text(row.get(key, "")) if level != "total" else "" for key in KEYS]
    values = [row[side][name] for side in sides for name in names]
    return [level, *keys, *values, *(row.get("effects", {}).get(name) for name in effects)]


def _text(value: Any) -> Any:
    """Escape text that a spreadsheet would treat as a formula: routers choose the names of endpoints."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value
