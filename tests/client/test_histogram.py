"""The exponential histogram shared by routers and control plane."""

import math
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.reporting.histogram import MAX_INDEX, MIN_INDEX, Histogram, index, middle, upper_edge

POSITIVE = st.floats(min_value=5e-324, max_value=sys.float_info.max, allow_nan=False)


def above_edge(value: float, bucket: int) -> bool:
    """Whether value > 2^(bucket/16), in exact arithmetic: both sides to the sixteenth power."""
    power = Fraction(value) ** 16
    return power > (Fraction(2) ** bucket)


@given(POSITIVE)
def test_every_value_lies_exactly_within_the_bounds_of_its_bucket(value: float) -> None:
    bucket = index(value)
    assert bucket is not None
    assert above_edge(value, bucket)
    assert not above_edge(value, bucket + 1)


@given(st.integers(-1000 * 16, 1023 * 16))
def test_a_bound_belongs_to_the_lower_bucket_and_the_next_double_to_the_upper(bucket: int) -> None:
    edge = upper_edge(bucket)
    assert index(edge) == bucket
    assert index(math.nextafter(edge, math.inf)) == bucket + 1


@pytest.mark.parametrize(
    ("value", "bucket"), [(1, -1), (2, 15), (4, 31), (1.0000000000000002, 0), (0.5, -17)]
)
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(value: float, bucket: int) -> None:
    assert index(value) == bucket


@given(POSITIVE.filter(lambda value: 1e-300 < value < 1e300))
def test_its_estimates_are_within_2_2_percent(value: float) -> None:
    bucket = index(value)
    assert bucket is not None
    assert abs(middle(bucket) / value - 1) <= 0.0222


def test_it_covers_the_smallest_and_the_largest_double() -> None:
    assert index(sys.float_info.max) == MAX_INDEX
    smallest = index(5e-324)
    assert smallest is not None
    assert smallest >= MIN_INDEX
    assert upper_edge(MAX_INDEX + 1) == math.inf


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, -math.inf])
def test_it_refuses_invalid_amounts(value: float) -> None:
    with pytest.raises(ValueError, match="finite and not negative"):
        index(value)


@given(st.lists(st.integers(0, 10**9), max_size=60), st.lists(st.integers(0, 10**9), max_size=60))
def test_merging_equals_recording_everything(left: list[int], right: list[int]) -> None:
    merged, whole = Histogram(), Histogram()
    other = Histogram()
    for value in left:
        merged.record(value)
    for value in right:
        other.record(value)
    for value in left + right:
        whole.record(value)
    merged.merge(other)
    assert merged == whole
    assert whole.total == len(left) + len(right)
    assert Histogram.from_dict(whole.as_dict()) == whole


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60), st.integers(-20, 500))
def test_it_counts_the_tail_above_an_edge(values: list[int], bucket: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    above = sum(value > upper_edge(bucket) for value in values)
    assert histogram.count_above(bucket) == above
    assert histogram.share_above(bucket) == above / len(values)


def test_it_finds_the_smallest_edge_with_at_most_a_share_above() -> None:
    histogram = Histogram()
    for value in range(1, 101):
        histogram.record(value)
    edge = histogram.tail_edge(0.05)
    assert edge is not None
    share, wider = histogram.share_above(edge), histogram.share_above(edge - 1)
    assert share is not None
    assert wider is not None
    assert share <= 0.05 < wider


def test_it_has_no_tail_edge_if_it_is_empty_or_almost_all_zeros() -> None:
    assert Histogram().tail_edge(0.05) is None
    assert Histogram(zero=99, counts={10: 1}).tail_edge(0.05) is None


def test_it_reads_quantiles() -> None:
    histogram = Histogram(zero=5)
    for value in (100, 200, 300, 400, 500):
        histogram.record(value)
    assert histogram.quantile(0.5) == 0
    median_of_rest, highest = histogram.quantile(0.8), histogram.quantile(1)
    assert median_of_rest == pytest.approx(300, rel=0.022)
    assert highest == pytest.approx(500, rel=0.022)
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"scale": 3, "zero": 0, "counts": {}},
        {"scale": 4, "zero": -1, "counts": {}},
        {"scale": 4, "zero": True, "counts": {}},
        {"scale": 4, "zero": 0, "counts": []},
        {"scale": 4, "zero": 0, "counts": {"7": -1}},
        {"scale": 4, "zero": 0, "counts": {"7": 1.5}},
        {"scale": 4, "zero": 0, "counts": {"007": 1}},
        {"scale": 4, "zero": 0, "counts": {"x": 1}},
        {"scale": 4, "zero": 0, "counts": {"99999": 1}},
    ],
)
def test_it_refuses_inconsistent_data(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="histogram"):
        Histogram.from_dict(data)
