"""Whole streams of traffic: each verdict of the engine can be recomputed without the engine.

`docs/recompute_verdicts.py` shares no line with the engine. The traffic comes from the benchmarks: units with their own
rates, endpoints, differing tasks, missing reports, costs with a tail.
"""

import json
import math
from typing import Any

import pytest

from benchmarks.simulated.rollout import stages_of
from benchmarks.simulated.scenario import Missing, Scenario, Units
from benchmarks.simulated.traffic import Traffic
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import SHARE_ALL
from rollout_app.engine.guardrails import Guardrail, guardrails_for
from rollout_app.engine.metrics import Metric
from tests.support.evidence_builders import REFERENCE, STAGES, arm, stratum
from tests.support.recompute import recompute

FIVE = {"/chat": 0.4, "/search": 0.3, "/tickets": 0.2, "/mail": 0.07, "/admin": 0.03}
STREAMS = [
    Scenario("equal"),
    Scenario("fails more, costs more", success=-0.06, cost=1.3, latency=1.4),
    Scenario("fails less, costs less", success=0.03, cost=0.7),
    Scenario("a fifth differs", success=-0.04, cost=1.1, differing=0.2),
    Scenario("one endpoint is hurt", success=-0.3, endpoints=FIVE, hurt="/mail"),
    Scenario("weak first", weak_first=0.4, cost=0.5),
    Scenario("ungraded failures", success=-0.05, missing=Missing(ungraded_failures=0.6)),
    Scenario("ungraded in the baseline, too", missing=Missing(both_ungraded=0.3, both_unfinished=0.05)),
    Scenario("late", missing=Missing(late_failures=0.5, late_successes=0.1)),
    Scenario("unpriced", cost=1.2, missing=Missing(unpriced=0.4, unpriced_factor=3.0)),
    Scenario("one heavy unit", units=Units(heavy=0.3), success=-0.05),
    Scenario("a heavy unit comes", units=Units(heavy=0.3, arrives=10)),
    Scenario("tenants", units=Units(tenants=300), differing=0.3),
    Scenario("users", units=Units(users=True), success=-0.03),
    Scenario("an old client", success=-0.02, reports=False),
    Scenario("few tasks", success=-0.1, per_minute=20, before=300),
    Scenario("heavy costs", sigma=2.0, expensive=0.014, cost=1.1),
    Scenario("nearly never fails", base_failures=0.0015, after_first=True),
]
MINUTES = 36
BOUNDS = {Metric.FAILURE: 0.12, Metric.ERROR: 0.03, Metric.COST_PER_SUCCESS: 900_000}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_every_verdict_can_be_recomputed(stream: Scenario, seed: int) -> None:
    """Each of three stages has a third of the minutes. Every third minute is judged."""
    module, traffic, stages = recompute(), Traffic(stream, seed), stages_of("cautious")[:4]
    guardrails = guardrails_for({"metric": metric, "bound": bound} for metric, bound in BOUNDS.items())
    accumulator = Accumulator.open(guardrails, stages, traffic.reference)
    rollout = as_answered(
        {
            "stages": [stage.as_dict() for stage in stages],
            "reference": traffic.reference.as_dict(),
        }
    )
    kept = as_answered(accumulator.as_dict())
    for minute in range(MINUTES):
        stage = 3 * minute // MINUTES
        row = traffic.row(minute, stages[stage].share_pcm / SHARE_ALL, stage)
        late = {} if stream.reports else traffic.late
        bit_by_bit = Accumulator.from_dict(kept)
        bit_by_bit.take([row], before=minute + 1, late=late)
        kept = as_answered(bit_by_bit.as_dict())
        if not accumulator.take([row], before=minute + 1, late=late) or minute % 3 != 2:
            continue
        judgement = accumulator.judge(stage, forecast=False)
        assert alike(bit_by_bit.judge(stage, forecast=False).as_dict(), judgement.as_dict()), minute
        for verdict in judgement.verdicts:
            data = as_answered(verdict.as_dict())
            answer = {"stage": stage, "verdict": data["result"], "data": data}
            assert module.differences(rollout, answer) == {}, (minute, verdict.name)


@pytest.mark.parametrize(("margin", "quality"), [(0.04, 0.8), (0.05, 0.8), (0.5, 0.3), (0.05, 0.0)])
def test_a_margin_of_quality_of_100_percent_can_be_recomputed(margin: float, quality: float) -> None:
    accumulator = Accumulator.open([Guardrail(Metric.QUALITY, margin, 1)], STAGES, REFERENCE)
    for minute in range(20):
        accumulator.add(stratum(1, minute, arm(50, quality=quality), arm(950)))
    rollout = as_answered({"stages": [stage.as_dict() for stage in STAGES], "reference": REFERENCE.as_dict()})
    [verdict] = accumulator.judge(0).verdicts
    data = as_answered(verdict.as_dict())
    assert recompute().differences(rollout, {"stage": 0, "verdict": data["result"], "data": data}) == {}


def alike(one: Any, other: Any) -> bool:
    """Compare to 1 %, because the stored sums of a thousand cells are rounded."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=0.01, abs_tol=0.01)
    return bool(one == other)


def as_answered(data: Any) -> Any:
    """Return the data as sent over the wire."""
    return json.loads(json.dumps(data))
