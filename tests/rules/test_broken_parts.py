"""A part of the evidence that raises counts nothing and is named; the others continue. Also: older sums are read."""

from typing import Any

import pytest

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Hold, decide
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.measures.base import CERTAIN
from rollout_app.engine.measures.sufficient import RateStatistics, RatioStatistics
from rollout_app.engine.stats import rates
from rollout_app.engine.verdicts import Verdict
from tests.support.evidence_builders import (
    FLEET,
    NOW,
    REFERENCE,
    STAGES,
    arm,
    evidence,
    ledger,
    stratum,
    view,
)


def raising(*_: Any, **__: Any) -> Any:
    raise OverflowError("too large")


def of(opened: Accumulator, name: str) -> Verdict:
    return next(verdict for verdict in opened.judge(1).verdicts if verdict.name == name)


@pytest.mark.parametrize("method", ["tasks", "margin_for", "harm"])
def test_a_guardrail_that_raises_has_no_data(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger(looks=5)
    monkeypatch.setattr(opened.measures["error"], method, raising)
    found = of(opened, "error").as_dict()
    assert (found["result"], found["failed"], found["note"]) == (
        "no_data", "OverflowError", "It could not be judged.",
    )  # fmt: skip
    assert (found["n_candidate"], found["n_baseline"], found["log_e_harm"], found["log_e_safe"]) == (
        0,
        0,
        0,
        0,
    )
    assert (found["estimate"], found["counted"], found["gates"], found["log_e_counted"]) == (
        None,
        False,
        True,
        None,
    )
    assert (found["margin"], found["stage_margin"], found["weight"]) == (0.01, 0.01, 0.1)
    judgement = opened.judge(1)
    assert judgement.broken == ("error (OverflowError)",)
    decision = decide(view(), evidence(judgement), FLEET, NOW)
    assert isinstance(decision, Hold)
    assert decision.reason.code == "evaluation_failed"


def test_a_part_that_raises_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger(looks=20, failure=0.25)
    whole = opened.judge(1)
    monkeypatch.setattr(opened.measures["failure"], "_harm_part", raising)
    judgement = opened.judge(1)
    parts = of(opened, "failure").parts
    assert [(part.log_e, part.counted, part.failed) for part in parts if part.name == "all"] == [
        (0.0, False, "OverflowError")
    ]
    assert "failure, part all (OverflowError)" in judgement.broken
    assert whole.broken == ()
    assert judgement.log_e < whole.log_e


def test_harm_still_counts_if_the_evidence_of_safety_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger(looks=20, failure=0.25)
    monkeypatch.setattr(opened.measures["failure"], "safe", raising)
    verdict = of(opened, "failure")
    assert (verdict.result, verdict.failed, verdict.log_e_safe, verdict.estimate) == (
        "fail",
        "OverflowError",
        0,
        None,
    )
    assert opened.judge(1).roll_back


@pytest.mark.parametrize(
    ("where", "what", "said"),
    [
        ("shares", "verdicts", "missing shares (OverflowError)"),
        ("shares", "differing_mismatch", "differing shares (OverflowError)"),
    ],
)
def test_a_check_of_missing_data_that_raises_is_named(
    where: str, what: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = ledger(looks=20)
    before = opened.judge(1, detail=False)
    monkeypatch.setattr(type(getattr(opened, where)), what, raising)
    if what == "differing_mismatch":
        monkeypatch.setattr(opened, "_differing", lambda _: None)
    judgement = opened.judge(1, detail=False)
    assert judgement.broken == (said,)
    assert judgement.log_e == before.log_e
    assert (judgement.missing == ()) == (what == "verdicts")


def test_a_measure_that_could_not_add_a_window_stays_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger(looks=3)
    with monkeypatch.context() as broken:
        broken.setattr(opened.measures["retry"], "take", raising)
        broken.setattr(opened.shares, "take", raising)
        opened.add(stratum(1, 3, arm(100), arm(1_900)))
    opened.add(stratum(1, 4, arm(100), arm(1_900)))
    assert dict(opened.failed) == {"missing shares": "OverflowError", "retry": "OverflowError"}
    judgement = opened.judge(1)
    assert sorted(judgement.broken) == ["missing shares (OverflowError)", "retry (OverflowError)"]
    assert of(opened, "retry").n_candidate == 0
    assert of(opened, "error").n_candidate == 500


def test_a_displayed_figure_that_raises_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = ledger(looks=2)
    for name in ("interval", "safe_after"):
        monkeypatch.setattr(opened.measures["error"], name, raising)
    verdict = of(opened, "error")
    assert (verdict.low, verdict.high, verdict.needed_tasks, verdict.failed) == (None, None, None, "")
    assert verdict.sums
    assert opened.judge(1).broken == ()


def test_costs_do_not_depend_on_failures_without_sticky_units() -> None:
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    opened.failed["failure"] = "OverflowError"
    assert of(opened, "cost_per_success").failed == ""
    assert of(opened, "failure").failed == "OverflowError"


# --- older sums ------------------------------------------------------------------------------------------


def test_it_reads_sums_by_stage() -> None:
    """Format 4 had a row for each stage. Figures that were added later are unknown, not 0."""
    opened = Accumulator.open(guardrails_for(), STAGES, REFERENCE)
    older: dict[str, Any] = {**opened.as_dict(), "format": 4}
    rate = {"1": [100, 9, 900, 70, 1.5, 90.0, 0.5, 0.25], "3": [300, 40, 400, 30, 2.5, 170.0, 0.75, 0.5]}
    money = {"1": [float(at) for at in range(1, 20)], "3": [100.0 * at for at in range(1, 20)]}
    older["sums"] = {"failure": rate, "cost_per_success": money}
    read = Accumulator.from_dict(older)
    failure, cost = read.measures["failure"], read.measures["cost_per_success"]
    whole = failure.parts["all"].stats  # type: ignore[attr-defined]
    assert (whole.nt, whole.xt, whole.nc, whole.xc) == (400, 49, 1_300, 100)
    assert (whole.mh_numerator, whole.mh_denominator, whole.llr[:2]) == (4.0, 260.0, [1.25, 0.75])
    assert whole.llr[2] == 2 * rates.UNSEEN
    later = failure.parts["since 3"].stats  # type: ignore[attr-defined]
    assert (later.nt, later.xt, later.nc, later.xc, later.llr[0]) == (300, 40, 400, 30, 0.75)
    assert set(failure.parts) == {"all", "since 2", "since 3"}  # type: ignore[attr-defined]
    sums = cost.parts["all"].stats  # type: ignore[attr-defined]
    assert sums.dump() == [101.0 * at for at in range(1, 20)]
    assert cost.parts["since 3"].stats.dump() == money["3"]  # type: ignore[attr-defined]


def test_sums_merge_field_by_field() -> None:
    one = RateStatistics((1.2, 2.0), 10, 1, 20, 2, 0.5, 6.0, [0.1, 0.2])
    one.merge(RateStatistics((1.2, 2.0), 5, 3, 7, 4, 0.25, 3.0, [1.0, 2.0]))
    assert one == RateStatistics((1.2, 2.0), 15, 4, 27, 6, 0.75, 9.0, [1.1, 2.2])
    money = RatioStatistics.load([float(at) for at in range(19)])
    money.squared_errors(1.0)
    money.merge(RatioStatistics.load([10.0 * at for at in range(19)]))
    assert money.dump() == [11.0 * at for at in range(19)]
    assert money.errors is None
    assert pytest.approx(6.907755278982137) == CERTAIN


def test_what_older_sums_lack_stays_unknown_after_new_windows() -> None:
    """Format 4 lacks some odds ratios. Adding windows must not make their unknown likelihood ratios look known."""
    psis = (*rates.HARM_PSIS, 12.0, 100.0)
    known = RateStatistics(rates.HARM_PSIS)
    older = RateStatistics.load_older(psis, known.dump()[:6] + known.llr)
    for counts in [(100, 30, 100, 2)] * 4:  # at an odds ratio of 12 their likelihood is higher than at 1
        older.add(counts)
        known.add(counts)
    assert older.llr[psis.index(12.0)] > rates.UNSEEN
    expected = rates.log_ratio_at(rates.HARM_PSIS, known.llr, 8.0)
    assert rates.log_ratio_at(psis, older.llr, 8.0) == pytest.approx(expected)
