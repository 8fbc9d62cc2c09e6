"""The statistics against the shared vectors, one test per section of the file."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pointsman.reporting.histogram import Histogram
from rollout_app.engine.stats import combine, mixture, rates, ratios, srm

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "statistics.json").read_text())


def close(value: Any) -> Any:
    """The vectors' tolerance."""
    return pytest.approx(value, rel=0, abs=1e-6)


def test_it_uses_the_agreed_constants() -> None:
    agreed = VECTORS["constants"]
    assert [list(pair) for pair in rates.HARM_GRID] == agreed["HARM_GRID"]
    assert [list(pair) for pair in rates.SAFE_GRID] == agreed["SAFE_GRID"]
    assert list(combine.RESTART_WEIGHTS) == agreed["restart_weights"]
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
def test_it_weighs_a_sum(case: dict[str, Any]) -> None:
    assert mixture.log_e_normal(case["S"], case["V"], case["rho"]) == close(case["log_e"])


@pytest.mark.parametrize("case", VECTORS["bound_normal"])
def test_it_bounds_a_sum(case: dict[str, Any]) -> None:
    assert mixture.bound_normal(case["V"], case["alpha"], case["rho"]) == close(case["S_bound"])


@pytest.mark.parametrize("case", VECTORS["stratum_llr"])
def test_it_weighs_a_stratum(case: dict[str, Any]) -> None:
    [llr] = rates.stratum_llrs(case["nT"], case["xT"], case["nC"], case["xC"], [case["psi"]])
    assert llr == close(case["llr"])


@pytest.mark.parametrize("case", VECTORS["rate_guard"], ids=lambda case: case["name"])
def test_it_judges_a_rate(case: dict[str, Any]) -> None:
    strata: list[tuple[int, int, int, int]] = [tuple(stratum) for stratum in case["strata_nT_xT_nC_xC"]]
    margin = rates.margin_odds_ratio(case["p_ref"], case["delta"])
    assert margin == close(case["psi_margin"])
    assert margin is not None
    psis = [psi for psi, _ in (*rates.HARM_GRID, *rates.SAFE_GRID)] + [margin]
    llr = dict.fromkeys(psis, 0.0)
    after_each = []
    for stratum in strata:
        for psi, value in zip(psis, rates.stratum_llrs(*stratum, psis), strict=True):
            llr[psi] += value
        after_each.append(rates.log_e_harm(llr))
    assert after_each == close(case["log_e_harm_after_each"])
    crossings = ((1 / 0.05, "ln(1/0.05)"), (1 / (0.05 * 0.25), "ln(1/(0.05*0.25))"))
    for level, name in (*crossings, (1 / (0.05 * 0.25 * 0.7), "ln(1/(0.05*0.25*0.7))")):
        first = next((i for i, log_e in enumerate(after_each, 1) if log_e >= math.log(level)), None)
        assert first == case["first_stratum_crossing"].get(name)
    assert rates.log_e_harm(llr, deff=2) == close(case["log_e_harm_deff_2"])
    assert rates.log_e_safe(llr, llr[margin], margin) == close(case["log_e_safe"])
    numerator, denominator = rates.mantel_haenszel(strata)
    if case["mh_diff"] is None:
        assert denominator == 0
        return
    assert numerator / denominator == close(case["mh_diff"])
    n, x = sum(nt + nc for nt, _, nc, _ in strata), sum(xt + xc for _, xt, _, xc in strata)
    interval = rates.difference_interval(numerator / denominator, denominator, n, x)
    assert interval == close(case["cs_one_sided_0.05_each"])


@pytest.mark.parametrize("case", VECTORS["ratio_guard"], ids=lambda case: case["name"])
def test_it_judges_a_ratio(case: dict[str, Any]) -> None:
    total, arms = ratios.Contrast(), [ratios.Moments(), ratios.Moments()]
    for stratum in case["strata_T_C"]:
        candidate, baseline = (ratios.Moments(**arm) for arm in stratum)
        total += ratios.contrast(candidate, baseline)
        arms = [arms[0] + candidate, arms[1] + baseline]
    errors = ratios.squared_errors(total, arms[0], arms[1], deff=1)
    harm = safe = 0.0
    if errors is not None:
        assert total.ratio is not None
        assert [total.a, total.b, total.qa, total.qb] == pytest.approx(
            [case[k] for k in ("A", "B", "QA", "QB")]
        )
        assert total.ratio == close(case["mh_ratio"])
        assert errors == close((case["se2_own"], case["se2_safe"]))
        relative = [arm.relative_variance for arm in arms]
        assert relative == close([case["relvar_T"], case["relvar_C"]])
        interval = ratios.ratio_interval(total.ratio, *errors, case["cv2_ref"])
        assert interval == close(case["cs_one_sided_0.05_each"])
        if ratios.enough(*arms):
            log_r = math.log(total.ratio)
            harm = ratios.log_e(log_r, 0, errors[0], case["cv2_ref"], 0.01)
            safe = ratios.log_e(-log_r, -math.log(1.1), errors[1], case["cv2_ref"], 0.05)
    else:
        assert "mh_ratio" not in case
    assert harm == close(case["log_e_harm_phi1_alpha0.01"])
    assert safe == close(case["log_e_safe_phi1.1_alpha0.05"])


@pytest.mark.parametrize("case", VECTORS["srm"])
def test_it_sees_a_sample_ratio_mismatch(case: dict[str, Any]) -> None:
    log_e = srm.log_e_srm(tuple(segment) for segment in case["segments_share_T_C"])
    assert log_e == close(case["log_e"])
    assert (log_e >= srm.LOG_MISMATCH) is case["mismatch"]


@pytest.mark.parametrize("case", VECTORS["log_e_abs_safe"])
def test_it_weighs_one_arm_alone(case: dict[str, Any]) -> None:
    bound = case["p_ref"] + case["delta"]
    log_e = rates.log_e_below(case["n"], case["x"], bound, case["p_ref"])
    assert log_e == close(case["log_e"])
    assert (log_e >= combine.LOG_SAFE) is case["safe"]


@pytest.mark.parametrize("case", VECTORS["missing_breach"])
def test_it_misses_outcomes(case: dict[str, Any]) -> None:
    assert combine.missing_breach(*case["in"]) is case["out"]


@pytest.mark.parametrize("case", VECTORS["stage_margin"])
def test_it_widens_the_margin_of_a_small_stage(case: dict[str, Any]) -> None:
    margin = combine.stage_margin(case["delta"], case["cap"], case["next_share"])
    assert margin == close(case["margin"])
    if case["psi"] is not None:
        assert rates.margin_odds_ratio(case["p_ref"], margin) == close(case["psi"])


@pytest.mark.parametrize("case", VECTORS["combine"])
def test_it_combines_evidence(case: dict[str, Any]) -> None:
    if case["op"] == "restart":
        assert combine.restart(case["log_es"], case["weights"]) == close(case["log_e"])
        return
    log_e = combine.rollout_evidence(tuple(item) for item in case["items_loge_weight_estimate_margin"])
    assert log_e == close(float(case["log_E"]))
    assert (log_e >= combine.LOG_ROLL_BACK) is case["roll_back"]


def test_it_freezes_a_tail_edge() -> None:
    """The vectors' buckets, numbered: the edge is the upper one of bucket 4."""
    case = VECTORS["latency_tail"]
    baseline = Histogram(counts=dict(enumerate(case["baseline_pre_counts_last_is_overflow"])))
    edge = baseline.tail_edge(0.05)
    assert edge is not None
    assert case["edges"][edge] == case["tau"]
    assert baseline.share_above(edge) == pytest.approx(case["share_above"])
    seen = Histogram(counts=dict(enumerate(case["example"]["T"])))
    assert (seen.count_above(edge), seen.total) == (case["example"]["tail_T"], case["example"]["n_T"])
