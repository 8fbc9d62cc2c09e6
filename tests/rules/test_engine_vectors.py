"""The shared vectors, run through the engine's public entry points: windows are added, judged and decided on.

`PLAIN` is the test without the parts that were added later (differing tasks, slices, restarts, the exact cost test),
because the vectors do not have them. `test_border` pins the weights of these parts.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ArmSums, ClosedWindow, GradedCosts, Stage
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.measures.base import PLAIN, Tuning
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, weighted
from rollout_app.engine.verdicts import Verdict

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "statistics.json").read_text())
HALF = Stage("percentage", share_pcm=50_000)
FULL = Stage("full", share_pcm=100_000)
NUSD = 1_000_000_000  # the vectors count dollars


def close(value: Any) -> Any:
    """Compare with the vectors' tolerance."""
    return pytest.approx(value, rel=0, abs=1e-6)


def graded(n: int, failures: int) -> ArmSums:
    return ArmSums(tasks=n, successes=n - failures, failures=failures)


def failures_judged(case: dict[str, Any], deff: float = 1.0) -> tuple[Accumulator, list[Verdict]]:
    """Return the accumulator, and the verdicts after each of the vector's windows."""
    reference = Reference(outcomes=5_000, rates={"failure": case["p_ref"]}, deff=deff)
    guardrail = Guardrail(Metric.FAILURE, case["delta"], 1.0)
    opened = Accumulator.open([guardrail], (HALF, FULL), reference, PLAIN)
    verdicts = []
    for minute, (nt, xt, nc, xc) in enumerate(case["strata_nT_xT_nC_xC"]):
        opened.add(ClosedWindow(0, minute, minute, graded(nt, xt), graded(nc, xc)))
        [verdict] = opened.judge(0).verdicts
        verdicts.append(verdict)
    return opened, verdicts


@pytest.mark.parametrize("case", VECTORS["rate_guard"], ids=lambda case: case["name"])
def test_it_judges_failures(case: dict[str, Any]) -> None:
    _, verdicts = failures_judged(case)
    after_each = [verdict.log_e_harm for verdict in verdicts]
    assert after_each == close(case["log_e_harm_after_each"])
    assert verdicts[-1].log_e_safe == close(max(case["log_e_safe"], alone(case)))
    assert verdicts[-1].estimate == (None if case["mh_diff"] is None else close(case["mh_diff"]))
    if case["mh_diff"] is not None:
        assert (verdicts[-1].low, verdicts[-1].high) == close(case["cs_one_sided_0.05_each"])
    _, corrected = failures_judged(case, deff=2.0)
    assert corrected[-1].log_e_harm == close(case["log_e_harm_deff_2"])


def alone(case: dict[str, Any]) -> float:
    """Return the evidence from the candidate's own rate below the margin, which this section does not include."""
    n = sum(nt for nt, *_ in case["strata_nT_xT_nC_xC"])
    x = sum(xt for _, xt, *_ in case["strata_nT_xT_nC_xC"])
    bound = case["delta"]
    guess = max(case["p_ref"], bound / 10)
    guess = bound / 2 if guess >= bound else guess
    nearer = [odds * bound / (1 - bound + odds * bound) for odds in (0.05, 0.2, 0.5, 0.7, 0.85)]
    nearer += [case["p_ref"]] if 0 < case["p_ref"] < bound else []
    weights = [0.9, *[0.1 / len(nearer)] * len(nearer)]
    lines = [x * math.log(p / bound) + (n - x) * math.log((1 - p) / (1 - bound)) for p in (guess, *nearer)]
    return (
        math.log(math.fsum(w * math.exp(line) for w, line in zip(weights, lines, strict=True))) if n else 0.0
    )


@pytest.mark.parametrize("case", VECTORS["rate_guard"], ids=lambda case: case["name"])
def test_it_rolls_back_at_the_vectors_crossings(case: dict[str, Any]) -> None:
    """With the vectors' weights, the same window rolls back as in the vectors."""
    for name, weight, tuning in (
        ("ln(1/0.05)", 1.0, PLAIN),
        ("ln(1/(0.05*0.25))", 0.25, PLAIN),
        ("ln(1/(0.05*0.25*0.7))", 0.25, Tuning(0.1, 0.0, 0.0, 0.0, 0.0)),
    ):
        reference = Reference(outcomes=5_000, rates={"failure": case["p_ref"]})
        guardrail = Guardrail(Metric.FAILURE, 1e-9, weight)  # the vectors consider only the evidence
        opened = Accumulator.open([guardrail], (HALF, FULL), reference, tuning)
        first = None
        for minute, (nt, xt, nc, xc) in enumerate(case["strata_nT_xT_nC_xC"], 1):
            opened.add(ClosedWindow(0, minute, minute, graded(nt, xt), graded(nc, xc)))
            [verdict] = opened.judge(0).verdicts
            counted = sum(p.weight * math.exp(p.log_e) for p in verdict.parts if p.name == "all") * weight
            if first is None and counted >= 20:
                first = minute
        assert first == case["first_stratum_crossing"].get(name)


def costs(moments: dict[str, float]) -> ArmSums:
    """Return one arm with the vector's costs in nano-dollars."""
    n, good = int(moments["n"]), int(moments["d"])
    known = GradedCosts(
        n, good, round(moments["y"] * NUSD), moments["yy"] * NUSD**2, round(moments["yd"] * NUSD)
    )
    return ArmSums(tasks=n, successes=good, failures=n - good, cost_n=n, costs=known)


@pytest.mark.parametrize("case", VECTORS["ratio_guard"], ids=lambda case: case["name"])
def test_it_judges_costs(case: dict[str, Any]) -> None:
    reference = Reference(outcomes=5_000, cost_v=case["cv2_ref"])
    guardrail = Guardrail(Metric.COST_PER_SUCCESS, 0.10, 0.2)
    opened = Accumulator.open([guardrail], (HALF, FULL), reference, PLAIN)
    for minute, (candidate, baseline) in enumerate(case["strata_T_C"]):
        opened.add(ClosedWindow(0, minute, minute, costs(candidate), costs(baseline)))
    [verdict] = opened.judge(0).verdicts
    assert verdict.log_e_harm == close(case["log_e_harm_phi1_alpha0.01"])
    # The vectors omit the rule that nothing is safe while its estimate reaches the margin.
    worse = verdict.estimate is None or verdict.estimate >= 0.10
    assert verdict.log_e_safe == close(0.0 if worse else case["log_e_safe_phi1.1_alpha0.05"])
    assert verdict.estimate == (close(case["mh_ratio"] - 1) if "mh_ratio" in case else None)
    if "mh_ratio" not in case:
        return
    sums = dict(verdict.sums)["all"]
    between = [sums["contrast"][name] for name in ("a", "b", "qa", "qb")]
    assert between == pytest.approx([case["A"] * NUSD, case["B"] * NUSD, case["QA"], case["QB"]])
    assert verdict.low is not None and verdict.high is not None
    assert (verdict.low + 1, verdict.high + 1) == close(case["cs_one_sided_0.05_each"])


@pytest.mark.parametrize("case", VECTORS["combine"])
def test_it_adds_up_evidence_by_weight(case: dict[str, Any]) -> None:
    """The sum over a guardrail's parts and over a rollout's guardrails. `test_border` tests its threshold."""
    if case["op"] == "restart":
        assert weighted(zip(case["weights"], case["log_es"], strict=True)) == close(case["log_e"])
        return
    items = case["items_loge_weight_estimate_margin"]
    log_e = weighted((w, log_e) for log_e, w, seen, margin in items if seen is not None and seen >= margin)
    assert log_e == close(float(case["log_E"]))
    assert (log_e >= LOG_ROLL_BACK) is case["roll_back"]
