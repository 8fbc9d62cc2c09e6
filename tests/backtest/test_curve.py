"""Cost against quality, with examples that a reader can verify."""

import pytest

from rollout_app.backtest.curve import Point, aiq, by_score, hull, mixed, pgr, ranked


def test_without_a_gap_the_recovered_gap_is_none() -> None:
    assert pgr(0.7, 0.6, 0.8) == pytest.approx(0.5)
    assert pgr(0.7, 0.8, 0.8) is None
    assert pgr(0.7, 0.9, 0.8) is None


def test_a_perfect_ranking_recovers_everything_with_the_gaining_tasks() -> None:
    score = ranked([1, 1, 0, 0])
    # PGR after 0 … 4 strong calls: 0, .5, 1, 1, 1; the trapezoids over four steps: (.25 + .75 + 1 + 1) / 4.
    assert score.apgr == pytest.approx(0.75)
    assert (score.cpt_50, score.cpt_80) == (0.25, 0.5)


def test_the_worst_ranking_recovers_last() -> None:
    score = ranked([0, 0, 1, 1])
    assert score.apgr == pytest.approx(0.25)
    assert (score.cpt_50, score.cpt_80) == (0.75, 1.0)


def test_tied_scores_have_no_order() -> None:
    """Regression: a constant score had an APGR of .9 or .1, by the order of the file."""
    gains = [1] * 20 + [0] * 80
    for order in (gains, gains[::-1]):
        constant = by_score(order, [0.5] * 100)
        assert constant.apgr == pytest.approx(0.5)
        assert (constant.cpt_50, constant.cpt_80) == (0.5, 0.8)
    ahead = by_score([0, 1, 1, 0], [0.9, 0.1, 0.1, 0.9])
    assert ahead == ranked([1, 1, 0, 0])
    assert by_score([1, -1, 0], [0.2] * 3).apgr is None


def test_a_strong_model_that_is_not_stronger_has_no_score() -> None:
    assert ranked([1, -1]).apgr is None
    assert ranked([]).cpt_50 is None


def test_the_hull_omits_points_below_a_mix_of_others() -> None:
    cheap, middling, strong = Point("cheap", 0, 0.5), Point("middling", 5, 0.6), Point("strong", 10, 0.9)
    dear_and_bad = Point("bad", 12, 0.8)
    assert hull([strong, dear_and_bad, middling, cheap]) == [cheap, strong]


def test_a_mix_costs_what_its_parts_cost() -> None:
    frontier = [Point("cheap", 0, 0.5), Point("strong", 10, 0.9)]
    assert mixed(frontier, 5) == pytest.approx(0.7)
    assert mixed(frontier, 20) == 0.9
    assert mixed([Point("cheap", 2, 0.5)], 1) is None


def test_the_average_quality_is_the_area_under_the_hull() -> None:
    points = [Point("cheap", 0, 0.5), Point("strong", 10, 0.9)]
    assert aiq(points, 0, 10) == pytest.approx(0.7)
    assert aiq(points, 0, 20) == pytest.approx(0.8)
    assert aiq(points, 5, 5) is None
    assert aiq([], 0, 1) is None
