"""Missing data, slices and cells agree with `tests/vectors/evidence.json`, from an independent implementation."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rollout_app.engine.measures.rates import SHIFT_GRID, SHIFT_NULL
from rollout_app.engine.stats import cells, missing, naming, rates

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "evidence.json").read_text())
Case = dict[str, Any]


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def llrs(strata: list[list[int]], psis: tuple[float, ...]) -> list[float]:
    each = [rates.stratum_llrs(nt, xt, nc, xc, psis) for nt, xt, nc, xc in strata]
    return [sum(column) for column in zip(*each, strict=True)]


@pytest.mark.parametrize("case", VECTORS["missing"])
def test_it_accounts_for_missing_data(case: Case) -> None:
    given, out = case["in"], case["out"]
    mt, nt, mc, nc = given["missing"]
    found = missing.excess(mt / nt - mc / nc, nt * nc / (nt + nc), (mt, nt), (mc, nc), given["z"])
    assert (found.share, found.tasks) == (close(out["share"]), close(out["tasks"]))
    assert not found.share or found.candidate is out["candidate"]
    (spent_t, spent_c), (good_t, good_c) = given["spent"], given["good"]
    assert missing.safe_margin(given["margin"], given["p"], found) == close(out["safe_margin"])
    assert missing.harm_difference(given["difference"], given["pt"], given["p"], found) == close(
        out["harm_difference"]
    )
    assert missing.harm_odds_ratio(given["p"], found) == close(out["harm_odds_ratio"])
    assert missing.log_cost_worst(found, given["cap"], spent_t, good_c) == close(out["log_cost_worst"])
    assert missing.log_cost_best(found, given["cap"], spent_c, good_t) == close(out["log_cost_best"])


@pytest.mark.parametrize("case", VECTORS["harm_above"])
def test_it_tests_harm_against_a_null_above_one(case: Case) -> None:
    """The null is between grid points, where the engine interpolates, accurate to 3e-3 of the candidate's bad tasks."""
    given = case["in"]
    psis = (*rates.HARM_PSIS, *(psi for psi, _ in rates.SAFE_GRID if psi != 1))
    found = rates.harm_above(psis, llrs(given["strata"], psis), given["null"])
    bad = sum(stratum[1] for stratum in given["strata"])
    assert found == pytest.approx(case["out"], rel=1e-9 if given["null"] <= 1 else 0, abs=3e-3 * bad)


@pytest.mark.parametrize("case", VECTORS["within"])
def test_it_tests_one_arm_against_a_bound(case: Case) -> None:
    given = case["in"]
    found = rates.log_e_within(given["n"], given["x"], given["bound"], given["p_ref"], given["deff"])
    assert found == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["alone"])
def test_it_judges_the_candidates_rate_alone(case: Case) -> None:
    given = case["in"]
    assert rates.log_e_alone(given["n"], given["x"], given["bound"], given["p_ref"]) == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["safe"])
def test_it_compares_with_candidates_that_keep_the_margin(case: Case) -> None:
    given = case["in"]
    found = llrs(given["strata"], (*rates.HARM_PSIS, *rates.SAFE_PSIS, given["margin"]))
    places, log_weights = rates.safe_alternatives(given["margin"])
    log_e = rates.log_mixture([found[place] - found[-1] for place in places], log_weights)
    assert log_e == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["level"])
def test_it_takes_margins_at_the_baselines_present_rate(case: Case) -> None:
    given = case["in"]
    assert rates.level(given["n"], given["x"], given["p_ref"], given["deff"]) == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["shift"])
def test_it_tests_for_harm_beyond_the_differences_of_units(case: Case) -> None:
    psis = (SHIFT_NULL, *(psi for psi, _ in SHIFT_GRID))
    at_null, *others = llrs(case["in"]["strata"], psis)
    found = rates.log_mixture([llr - at_null for llr in others], [math.log(w) for _, w in SHIFT_GRID])
    assert found == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["hurt"])
def test_it_names_the_harmed_slices(case: Case) -> None:
    log_es = {str(i): math.log(e) if e else -math.inf for i, e in enumerate(case["in"]["e"])}
    assert sorted(map(int, naming.hurt(log_es, case["in"]["fdr"]))) == case["out"]


@pytest.mark.parametrize("case", VECTORS["cells"])
def test_it_predicts_the_rates_of_cells(case: Case) -> None:
    found = cells.predict({cell: tuple(counts) for cell, counts in enumerate(case["in"])})
    out = case["out"]
    assert (found.mean, found.persistent) == (close(out["mean"]), close(out["persistent"]))
    assert [found.rate(cell) for cell in range(len(case["in"]))] == [close(rate) for rate in out["rates"]]
    assert [found.kind(cell) for cell in range(len(case["in"]))] == out["kinds"]


@pytest.mark.parametrize("case", VECTORS["residual_design_effect"])
def test_it_measures_the_variation_left_by_the_prediction(case: Case) -> None:
    assert cells.residual_design_effect(map(tuple, case["in"])) == close(case["out"])


@pytest.mark.parametrize("case", VECTORS["compared_design_effect"])
def test_the_design_effect_uses_the_units_of_both_arms(case: Case) -> None:
    given = case["in"]
    arms = ([(n, size) for n, size in given[arm]] for arm in ("candidate", "baseline"))
    assert cells.compared_design_effect(given["residual"], *arms) == close(case["out"])
