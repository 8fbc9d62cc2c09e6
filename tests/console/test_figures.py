"""How figures are formatted and drawn."""

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from controlplane.web import display
from rollout_app.console.charts import LineChart, interval_picture
from rollout_app.console.presenters import _mirrored, comparison_caveat, figure_writer
from rollout_app.engine.evidence import MirrorSums


@pytest.mark.parametrize(
    ("nusd", "written"),
    [
        (None, "–"),
        (0, "$0.00"),
        (1_234_560_000_000, "$1,234.56"),
        (1_000_000_000, "$1.00"),
        (410_000, "$0.000410"),
        (12_300_000, "$0.0123"),
        (-410_000, "−$0.000410"),
        (999_600_000, "$1.00"),
    ],
)
def test_money(nusd: int | None, written: str) -> None:
    assert display.money(nusd) == written


@pytest.mark.parametrize(
    ("fraction", "written"),
    [
        (None, "–"), (0.943, "94.3"), (0, "0.0"), (1, "100.0"), (-0.0006, "−0.1"), (12.5, "over 1,000"),
        (0.9996, "99.96"), (0.999_99, "99.999"), (0.0004, "0.04"), (-0.0004, "−0.04"), (1 - 1e-12, "100.0"),
    ],
)  # fmt: skip
def test_percent(fraction: float | None, written: str) -> None:
    assert display.percent(fraction).removesuffix("\u202f%") == written


@pytest.mark.parametrize(("change", "written"), [(0.34, "+34.0"), (224.0, "over +1,000"), (-0.92, "−92.0")])
def test_a_change_of_over_1000_percent_is_capped(change: float, written: str) -> None:
    write = figure_writer("cost_per_success", absolute=False)
    assert write(change).removesuffix("\u202f%") == written


@pytest.mark.parametrize(
    ("pcm", "written"), [(0, "0"), (1, "0.001"), (500, "0.5"), (5_000, "5"), (100_000, "100")]
)
def test_share(pcm: int, written: str) -> None:
    assert display.share(pcm) == f"{written}\u202f%"


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (260, "4 min 20 s"), (7_200, "2 h"), (90_061, "1 day 1 h")],
)
def test_span(seconds: int, written: str) -> None:
    assert display.span(seconds).replace("\u202f", " ") == written


@pytest.mark.parametrize(
    ("before", "written"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(seconds=30), "30 s ago"),
        (timedelta(minutes=3), "3 min ago"),
        (timedelta(days=2), "2 days ago"),
        (timedelta(minutes=-3, seconds=-1), "in 3 min"),
    ],
)
def test_ago_has_the_exact_time(before: timedelta, written: str) -> None:
    with time_machine.travel(timezone.now(), tick=False):
        at = timezone.now() - before
        shown = display.ago(at).replace("\u202f", " ")
    assert f">{written}<" in shown
    assert f"{at:%Y-%m-%d %H:%M:%S} UTC" in shown


def test_ago_of_none_is_a_dash() -> None:
    assert display.ago(None) == "–"


@pytest.mark.parametrize(
    ("difference", "written"), [(0.021, "+2.1"), (-0.021, "−2.1"), (0.0, "0.0"), (0.0001, "0.0")]
)
def test_points(difference: float, written: str) -> None:
    assert display.points(difference) == f"{written}\u202fpoints"


def test_a_badge_escapes_what_it_shows() -> None:
    assert display.badge("<b>") == '<span class="pm-badge pm-quiet">&lt;b&gt;</span>'


def test_a_chart_without_points_is_empty() -> None:
    assert not LineChart("success", "Success", "share", {"baseline": [], "candidate": []})


def test_a_chart_names_its_lines_its_unit_and_its_threshold() -> None:
    drawn = LineChart(
        "success", "Success", "share", {"baseline": [(0.0, 0.5)], "candidate": []}, 0.9, "bar 90 %"
    )
    assert drawn
    assert drawn.data == {
        "unit": "share",
        "lines": [{"name": "baseline", "style": "baseline", "points": [(0.0, 0.5)]}],
        "threshold": 0.9,
        "thresholdName": "bar 90 %",
    }


def test_an_interval_shows_harm_on_the_right_of_zero() -> None:
    drawn = interval_picture(0.01, -0.005, 0.025, zero=0.0, margin=0.02)
    assert drawn.low < drawn.zero < drawn.estimate < drawn.margin < drawn.high


def test_an_interval_is_clipped_but_its_estimate_is_not() -> None:
    drawn = interval_picture(0.5, -9.0, 9.0, zero=0.0, margin=0.02)
    assert 0 < drawn.low < drawn.zero < drawn.margin < drawn.estimate < drawn.high < drawn.width


def test_an_interval_without_width_is_drawn() -> None:
    drawn = interval_picture(0.0, 0.0, 0.0, zero=None, margin=0.0)
    assert math.isfinite(drawn.estimate)


@pytest.mark.parametrize(
    ("won", "lost", "shown"), [(9_000, 0, "p < 0.0001"), (3, 3, "p = 1)"), (8, 1, "p = 0.039")]
)
def test_an_exact_test_never_shows_zero(won: int, lost: int, shown: str) -> None:
    """Regression: a test on 90,000 mirrored tasks showed "p = 0"."""
    sums = MirrorSums(n=10_000, both=500, only_candidate=won, only_baseline=lost, neither=500 - lost)
    assert shown in _mirrored(sums)[0][1]


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-9, -1e-9])
def test_a_change_that_is_shown_as_zero_has_no_sign(value: float) -> None:
    assert display.signed(display.percent(abs(value)), value) == f"0.0{display.THIN}%"
    assert figure_writer("cost_per_success", absolute=False)(value).startswith("0.0")


def test_a_share_that_is_shown_as_zero_has_no_sign() -> None:
    assert display.percent(-0.005, 0) == f"0{display.THIN}%"


def test_the_share_that_stays_on_the_baseline_is_not_rounded_to_none() -> None:
    stage = {"mode": "percentage", "share_pcm": 99_900}
    rollout: Any = SimpleNamespace(state="running", stages=[stage, {"mode": "full"}], stage=0)
    assert f"Only 0.1{display.THIN}% of the tasks" in comparison_caveat(rollout)


@pytest.mark.parametrize(
    ("minutes", "written"),
    [(None, "–"), (0, "0 s"), (0.5, "30 s"), (0.99, "59 s"), (1, "1 min"), (135.4, "2 h 15 min")],
)
def test_minutes(minutes: float | None, written: str) -> None:
    assert display.minutes(minutes).replace(display.THIN, " ") == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, "–"),
        (0, "0 ms"),
        (812, "812 ms"),
        (10_000, "10 s"),
        (1_500, "1.5 s"),
        (2**31 - 1, "2,147,483.647 s"),
        (1_613.804385, "1.614 s"),
        (999.7, "1 s"),
    ],
)
def test_milliseconds(number: float | None, written: str) -> None:
    assert display.milliseconds(number).replace(display.THIN, " ") == written
