"""The formulas agree with the shared vectors, one test per section; `test_engine_vectors` runs the engine itself."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.stats import combine, mixture, rates, ratios, srm

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "statistics.json").read_text())


def close(value: Any) -> Any:
    """Compare with the vectors' tolerance."""
    return pytest.approx(value, rel=0, abs=1e-6)


def test_it_uses_the_specified_constants() -> None:
    agreed = VECTORS["constants"]
    assert [list(pair) for pair in rates.HARM_GRID] == agreed["HARM_GRID"]
    assert [list(pair) for pair in rates.SAFE_GRID] == agreed["SAFE_GRID"]
    assert agreed["alpha_roll_back"] == combine.ALPHA
    assert math.isclose(combine.LOG_SAFE, -math.log(agreed["alpha_advance"]))
    assert math.isclose(srm.LOG_MISMATCH, -math.log(agreed["srm_alpha"]))
    assert (
        agreed["n_min_cost"],
        agreed["n_opt"],
        agreed["srm_kappa"],
    ) == (ratios.N_MIN, rates.N_OPT, srm.KAPPA)


@pytest.mark.parametrize("case", VECTORS["rho_opt"])
def test_it_finds_rho(case: dict[str, Any]) -> None:
    assert mixture.rho_for(case["v_opt"], case["alpha"]) == close(case["rho"])


@pytest.mark.parametrize("case", VECTORS["log_e_normal"])
def test_the_evidence_of_a_sum(case: dict[str, Any]) -> None:
    assert mixture.log_e_normal(case["S"], case["V"], case["rho"]) == close(case["log_e"])


@pytest.mark.parametrize("case", VECTORS["bound_normal"])
def test_it_bounds_a_sum(case: dict[str, Any]) -> None:
    assert mixture.bound_normal(case["V"], case["alpha"], case["rho"]) == close(case["S_bound"])


@pytest.mark.parametrize("case", VECTORS["stratum_llr"])
def test_the_evidence_of_a_stratum(case: dict[str, Any]) -> None:
    [llr] = rates.stratum_llrs(case["nT"], case["xT"], case["nC"], case["xC"], [case["psi"]])
    assert llr == close(case["llr"])


@pytest.mark.parametrize("case", VECTORS["srm"])
def test_it_sees_a_sample_ratio_mismatch(case: dict[str, Any]) -> None:
    log_e = srm.log_e_srm(tuple(segment) for segment in case["segments_share_T_C"])
    assert log_e == close(case["log_e"])
    assert (log_e >= srm.LOG_MISMATCH) is case["mismatch"]


@pytest.mark.parametrize("case", VECTORS["log_e_abs_safe"])
def test_the_evidence_of_one_arm(case: dict[str, Any]) -> None:
    bound = case["p_ref"] + case["delta"]
    log_e = rates.log_e_below(case["n"], case["x"], bound, case["p_ref"])
    assert log_e == close(case["log_e"])
    assert (log_e >= combine.LOG_SAFE) is case["safe"]


@pytest.mark.parametrize("case", VECTORS["missing_breach"])
def test_it_detects_missing_outcomes(case: dict[str, Any]) -> None:
    assert combine.missing_breach(*case["in"]) is case["out"]


@pytest.mark.parametrize("case", VECTORS["stage_margin"])
def test_it_widens_the_margin_of_a_small_stage(case: dict[str, Any]) -> None:
    margin = combine.stage_margin(case["delta"], case["cap"], case["next_share"])
    assert margin == close(case["margin"])
    if case["psi"] is not None:
        assert rates.margin_odds_ratio(case["p_ref"], margin) == close(case["psi"])


def test_it_freezes_a_tail_edge() -> None:
    """The vectors' buckets are numbered; the edge is the upper edge of bucket 4."""
    case = VECTORS["latency_tail"]
    baseline = Histogram(counts=dict(enumerate(case["baseline_pre_counts_last_is_overflow"])))
    edge = baseline.tail_edge(0.05)
    assert edge is not None
    assert case["edges"][edge] == case["tau"]
    assert baseline.share_above(edge) == pytest.approx(case["share_above"])
    seen = Histogram(counts=dict(enumerate(case["example"]["T"])))
    assert (seen.count_above(edge), seen.total) == (case["example"]["tail_T"], case["example"]["n_T"])
