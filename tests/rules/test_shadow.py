"""The report and the gate of the shadow stage."""

from dataclasses import replace

import pytest

from rollout_app.engine.evidence import MirrorSums, Rehearsed, ShadowSums
from rollout_app.engine.shadow import SecondStageCosts, gate, lacks_costs, shadow_report, shown_report


def test_it_reports_the_shadow_stage() -> None:
    shadow = ShadowSums(
        decisions=100, agreed=80, candidate_cost_nusd=70, baseline_cost_nusd=100,
        candidate_routes={"small": 60, "large": 40}, baseline_routes={"large": 100},
    )  # fmt: skip
    report = shadow_report(shadow, MirrorSums(n=50, both=40, only_candidate=2, only_baseline=7, neither=1))
    assert (report.agreement, report.route_shift, report.mirror_difference) == (0.8, 0.6, -0.1)
    assert report.cost_change == pytest.approx(-0.3)
    assert list(report.shifts) == ["large", "small"]


def test_it_reports_no_figures_without_decisions() -> None:
    report = shadow_report(ShadowSums(), MirrorSums())
    assert (report.agreement, report.cost_change, report.route_shift, report.mirror_difference) == (None,) * 4


def test_the_cost_covers_decisions_with_a_known_cost() -> None:
    shadow = ShadowSums(
        decisions=100,
        candidate_cost_nusd=80,
        baseline_cost_nusd=160,
        candidate_priced=80,
        baseline_priced=100,
    )
    report = shadow_report(shadow, MirrorSums())
    assert (report.candidate_cost, report.baseline_cost, report.cost_change) == (1.0, 2.0, -0.5)


@pytest.mark.parametrize(
    ("candidate", "baseline", "unknown"),
    [
        ((None, 0), (None, 160), "candidate"),
        ((0, 0), (100, 160), "candidate"),
        ((80, 80), (100, 160), "candidate"),
        ((100, 80), (80, 160), "baseline"),
    ],
    ids=["not said", "none", "few", "few of the baseline's"],
)
def test_a_cost_that_the_gate_calls_unknown_is_shown_as_unknown(
    candidate: tuple[int | None, int], baseline: tuple[int | None, int], unknown: str
) -> None:
    """It was shown as $0.00 and as -100 %, beside "is not known"."""
    shadow = ShadowSums(
        decisions=100, candidate_priced=candidate[0], candidate_cost_nusd=candidate[1],
        baseline_priced=baseline[0], baseline_cost_nusd=baseline[1],
    )  # fmt: skip
    report = shown_report(shadow, MirrorSums())
    sentence = gate(shadow, min_decisions=100, cost_margin=0.1)
    assert lacks_costs(shadow)
    assert f"The {unknown}'s projected cost is not known" in str(sentence)
    assert report.cost_change is None
    assert getattr(report, f"{unknown}_cost") is None


def test_a_candidate_that_costs_nothing_is_shown_as_such() -> None:
    shadow = ShadowSums(decisions=100, candidate_priced=100, baseline_priced=100, baseline_cost_nusd=160)
    report = shown_report(shadow, MirrorSums())
    assert (report.candidate_cost, report.baseline_cost, report.cost_change) == (0, 1.6, -1)


@pytest.mark.parametrize(
    ("candidate", "baseline", "word"),
    [
        (180, 180, None),
        (179, 200, "candidate's"),
        (200, 179, "baseline's"),
        (0, 200, "candidate's"),
        (None, None, None),
    ],
)
def test_it_advances_only_if_the_projected_costs_are_known(
    candidate: int | None, baseline: int | None, word: str | None
) -> None:
    shadow = ShadowSums(
        decisions=200, candidate_cost_nusd=100, baseline_cost_nusd=100, candidate_priced=candidate,
        baseline_priced=baseline,
    )  # fmt: skip
    sentence = gate(shadow, min_decisions=200, cost_margin=0.1)
    assert (sentence is None) if word is None else (word in str(sentence) and "is not known" in str(sentence))


OLDER = Rehearsed(ShadowSums(decisions=10, agreed=5, candidate_cost_nusd=100_000, baseline_cost_nusd=100_000))


@pytest.mark.parametrize("older_first", [True, False])
@pytest.mark.parametrize("priced", [0, 1_000])
def test_decisions_of_older_routers_count_as_not_priced_beside_those_of_newer_ones(
    older_first: bool, priced: int
) -> None:
    """Regression: 10 decisions of an older router erased "0 of 1,000 priced", and their costs passed the gate."""
    newer = Rehearsed(ShadowSums(1_000, 0, 0, 12 * priced, 10 * priced, priced, 1_000))
    both = (OLDER + newer if older_first else newer + OLDER).shadow
    assert replace(both, decisions=1_000, agreed=0, candidate_whole=None) == newer.shadow
    assert both.decisions == 1_010
    sentence = str(gate(both, min_decisions=200, cost_margin=0.1))
    assert ("+20.0%" if priced else "0 of 1,010 decisions have one") in sentence


def test_a_few_decisions_of_newer_routers_do_not_vouch_for_many_of_older_ones() -> None:
    many = Rehearsed(replace(OLDER.shadow, decisions=1_000))
    few = Rehearsed(
        ShadowSums(
            decisions=10, candidate_cost_nusd=1, baseline_cost_nusd=2, candidate_priced=10, baseline_priced=10
        )
    )
    assert "10 of 1,010" in str(gate((many + few).shadow, min_decisions=200, cost_margin=0.1))
    assert gate((many + OLDER).shadow, min_decisions=200, cost_margin=0.1) is None


CHEAP = ShadowSums(
    decisions=200, candidate_cost_nusd=10, baseline_cost_nusd=100, candidate_priced=200, baseline_priced=200
)  # fmt: skip


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        (None, None),
        (SecondStageCosts(-0.95, 0.05), None),
        (SecondStageCosts(-0.95, 0.1), None),
        (SecondStageCosts(-0.8, 0.2), None),
        (SecondStageCosts(0.1, 0.9), None),
        (SecondStageCosts(0.2, 0.9), "at least +20.0%"),
        (SecondStageCosts(-0.8, 0.2, -0.3), None),
        (
            SecondStageCosts(-0.8, 0.4, 0.15),
            "With its second stage, the candidate's projected cost per task is +15.0%",
        ),
        (SecondStageCosts(), None),
        (SecondStageCosts(-0.8), None),
    ],
    ids=str,
)
def test_escalations_count_in_the_projected_cost(costs: SecondStageCosts | None, says: str | None) -> None:
    """First calls alone are 90 % cheaper. If the escalation rate is unknown, the next stage measures it."""
    sentence = gate(CHEAP, min_decisions=200, cost_margin=0.1, second_stage=costs)
    assert (sentence is None) if says is None else (says in str(sentence))


@pytest.mark.parametrize(("whole", "lets_go"), [(200, True), (180, True), (179, False), (None, False)])
def test_reported_costs_with_the_second_stage_are_used(whole: int | None, lets_go: bool) -> None:
    shadow = replace(CHEAP, candidate_whole=whole)
    costs = SecondStageCosts(-0.8, 0.4, 0.2)
    assert (gate(shadow, min_decisions=200, cost_margin=0.1, second_stage=costs) is None) == lets_go


@pytest.mark.parametrize(
    ("unpriced", "says"),
    [
        (("a/one",), "No price: a/one."),
        ((), "All models have prices, but routers report no tokens."),
        (None, "Either a model has no price, or routers report no tokens."),
    ],
)
@pytest.mark.parametrize("priced", [None, 0])
def test_it_says_why_a_projected_cost_is_not_known(
    unpriced: tuple[str, ...] | None, says: str, priced: int | None
) -> None:
    shadow = ShadowSums(decisions=200, candidate_priced=priced, baseline_priced=priced and 200)
    sentence = gate(shadow, min_decisions=200, cost_margin=0.1, unpriced_models=unpriced)
    assert sentence is not None and says in sentence
    assert ("usage=Usage(" in sentence) != bool(unpriced)


def test_it_says_which_routers_report_shadow_decisions() -> None:
    sentence = gate(ShadowSums(), min_decisions=20, cost_margin=0.1)
    assert sentence is not None
    assert (
        sentence.startswith("0 of 20 required shadow decisions have been reported.") and "OFREP" in sentence
    )
    assert gate(ShadowSums(decisions=1), min_decisions=20, cost_margin=0.1) == (
        "1 of 20 required shadow decisions have been reported."
    )
