from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.bucketing import BUCKETS, bucket, in_candidate, mirrored
from tests.client.vectors import vectors

SHARES = st.integers(0, BUCKETS)


@pytest.mark.parametrize("case", vectors("bucketing")["cases"], ids=lambda case: str(case["unit"])[:20])
def test_it_agrees_with_every_language(case: dict[str, Any]) -> None:
    assert bucket(case["salt"], case["unit"]) == case["bucket"]


@given(st.text(), st.text(), SHARES, SHARES)
def test_it_keeps_units_on_the_candidate_when_the_share_grows(
    salt: str, unit: str, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    if in_candidate("percentage", low, salt, unit):
        assert in_candidate("percentage", high, salt, unit)
    assert in_candidate("full", low, salt, unit)
    assert not in_candidate("shadow", high, salt, unit)


@given(st.text(st.characters()), st.text(st.characters(categories=["Cs"])))
def test_it_accepts_any_text_including_lone_surrogates(salt: str, unit: str) -> None:
    assert 0 <= bucket(salt, unit) < BUCKETS


def test_it_replaces_a_lone_surrogate_like_browsers() -> None:
    assert bucket("s", "a\ud800") == bucket("s", "a\ufffd")


def test_a_unit_exactly_at_the_threshold_gets_the_baseline() -> None:
    border = bucket("s", "u")
    assert not in_candidate("percentage", border, "s", "u")
    assert in_candidate("percentage", border + 1, "s", "u")


def test_mirroring_does_not_depend_on_the_slice() -> None:
    units = [str(n) for n in range(4_000)]
    sampled = [unit for unit in units if mirrored(50_000, "s", unit)]
    assert len(sampled) == pytest.approx(2_000, abs=200)
    assert sum(in_candidate("percentage", 50_000, "s", unit) for unit in sampled) == pytest.approx(
        1_000, abs=150
    )
    assert not any(mirrored(0, "s", unit) for unit in units)


def test_it_mirrors_up_to_but_not_at_the_threshold() -> None:
    border = bucket("s/mirror", "u")
    assert not mirrored(border, "s", "u")
    assert mirrored(border + 1, "s", "u")


def test_it_can_mirror_one_unit_in_100_000() -> None:
    assert bucket("s/mirror", "u68768") == 0
    assert mirrored(1, "s", "u68768")
    assert not mirrored(0, "s", "u68768")
