"""Small streams and the engine's complete output: every figure that is stored, used for a decision or shown.

`tests/vectors/judgements/` has the expected output, one file per stream. Other tests show that a verdict's evidence is
right (the shared vectors, `test_recomputed_streams`); this one detects any change of a figure. If you change one on
purpose, write the files again with `python -m tests.rules.test_recorded_judgements` and review the diff.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import decide
from rollout_app.engine.evidence import FleetView, RolloutView, Telemetry
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.holds import Evidence, reasons_to_hold
from rollout_app.engine.shadow import shadow_report
from rollout_app.engine.states import State
from tests.support.recorded import as_json, differences, write
from tests.support.small_streams import FIRST, STAGES, Stream, Traffic

HOME = Path(__file__).parents[1] / "vectors" / "judgements"
BOUNDS = {"failure": 0.16, "error": 0.06, "cost_per_success": 9_000, "quality": 0.7}
STREAMS = [
    Stream("equal"),
    Stream("fails more", seed=2, fail_t=0.19, cost_t=1.3, error_t=0.05, slow_t=0.11, quality_t=0.74),
    Stream("cheaper", seed=3, cost_t=0.4, fail_t=0.07, tasks=160, mechanisms=("retry",), rehearses=3),
    Stream("one endpoint is hurt", seed=4, fail_t=0.7, hurt="/mail", differing=0.3),
    Stream("much is missing", seed=5, ungraded_failures_t=0.5, unpriced_t=0.3, unreported_t=0.08, late_t=0.06),
    Stream("the baseline misses more", seed=6, ungraded=0.25, unpriced=0.3, unpriced_t=0.05, fail_t=0.2, cost_t=1.5),
    Stream("sticky", seed=7, units=60, fail_t=0.13),
    Stream("sticky, far worse", seed=8, units=90, fail_t=0.6, cost_t=2.0, tasks=40),
    Stream("older routers", seed=9, units=50, tells=False, late_t=0.05, mechanisms=None),
    Stream("bounds", seed=10, bounds=BOUNDS, fail_t=0.2, cost_t=1.4, quality_t=0.6, ungraded_failures_t=0.2),
    Stream("within bounds", seed=11, bounds=BOUNDS, fail_t=0.06, cost_t=0.8, tasks=150, unpriced_t=0.1),
    Stream("free", seed=12, cost_t=0.0, fail_t=0.05, fail=0.05, tasks=120),
    Stream("calm", seed=14, tasks=500, minutes=9, calm=0.1, cost_t=0.5, fail=0.05, fail_t=0.04),
    Stream("calm at once", seed=15, tasks=900, minutes=3, calm=0.1, cost_t=0.5, fail=0.05, fail_t=0.04),
    Stream("sets in late", seed=16, sets_in=2, fail_t=0.25, cost_t=1.6, error_t=0.1, tasks=50),
    Stream("a wrong share", seed=17, share_t=1.5, minutes=18),
    Stream("the arms differ otherwise", seed=18, differing=0.3, differing_t=2.5, minutes=18, fail_t=0.14),
    Stream("nothing fails", seed=19, fail=0.0, fail_t=0.0, ungraded=0.0, ungraded_failures_t=0.0, minutes=12),
    Stream("few tasks", seed=13, tasks=9, minutes=36),
]  # fmt: skip
NOW = datetime.fromtimestamp(60 * (FIRST + 50), UTC)


def guardrails(stream: Stream) -> list[dict[str, Any]]:
    quality: list[dict[str, Any]] = [{"metric": "quality", "margin": 0.05, "weight": 0.1}]
    return quality + [{"metric": metric, "bound": bound} for metric, bound in stream.bounds.items()]


def looked_at(stream: Stream) -> Iterator[dict[str, Any]]:
    """Yield the output after each stage, and at the end the stored sums."""
    traffic = Traffic(stream)
    opened = Accumulator.open(guardrails_for(guardrails(stream)), STAGES, traffic.reference)
    rows = list(traffic.rows())
    for at, row in enumerate(rows):
        opened.take(rows[: at + 1], before=row.minute + 1, late=traffic.late)
        if at + 1 == len(rows) or rows[at + 1].stage != row.stage:
            yield said(opened, row.stage, row.minute, detail=at + 1 == len(rows))
    yield {"stored": opened.as_dict()}


def said(opened: Accumulator, stage: int, minute: int, *, detail: bool) -> dict[str, Any]:
    judgement = opened.judge(stage, detail=detail)
    seen = Evidence(
        judgement, opened.reference, Telemetry(400, 380, NOW - timedelta(seconds=90)),
        baseline_last_hour=opened.baseline_since(minute - 4), shadow=opened.rehearsed.shadow,
        mirror=opened.rehearsed.mirror,
    )  # fmt: skip
    rollout = RolloutView(State.RUNNING, STAGES, stage, NOW - timedelta(minutes=60))
    fleet = FleetView(8, 8)
    return {
        "judgement": judgement.as_dict(),
        "besides": {
            "furthest": [judgement.furthest, *(opened.judge(at, forecast=False).furthest for at in (1, 4))],
            "broken": judgement.broken,
            "harmful": [verdict.name for verdict in judgement.harmful],
            "differing": judgement.differing_mismatch and judgement.differing_mismatch.as_dict(),
            "level": judgement.units and judgement.units.baseline_level,
            "longest": [v.needed_tasks for v in opened.forecast(judgement, stage, longest=True).verdicts],
        },
        "conditions": {**asdict(opened.conditions()), "tuning": None},
        "reasons": [asdict(reason) for reason in reasons_to_hold(rollout, seen, fleet, NOW)],
        "decision": asdict(decide(rollout, seen, fleet, NOW)) | {"verdicts": None},
        "shadow": asdict(shadow_report(seen.shadow, seen.mirror)),
    }


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_it_matches_the_recorded_output(stream: Stream) -> None:
    assert list(differences(recorded(stream), as_json(list(looked_at(stream))))) == []


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_stored_sums_are_the_same_when_read_again(stream: Stream) -> None:
    stored = recorded(stream)[-1]["stored"]
    again = Accumulator.from_dict(stored)
    assert list(differences(stored, as_json(again.as_dict()))) == []
    last = recorded(stream)[-2]["judgement"]
    assert list(differences(last, as_json(again.judge(3).as_dict()), rel=1e-4)) == []


@cache
def recorded(stream: Stream) -> Any:
    return json.loads(path(stream).read_text())


def path(stream: Stream) -> Path:
    return HOME / f"{stream.name.replace(',', '').replace(' ', '_')}.json"


if __name__ == "__main__":
    for one in STREAMS:
        write(path(one), list(looked_at(one)))
