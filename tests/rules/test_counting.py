"""Adding up: the order and the grouping make no difference, and what is added stays as it was."""

import copy
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.outcomes.aggregate import NUMBERS, Contribution, RouteKey, RunningTotals, add_up, by_arm
from rollout_app.outcomes.schemas import ReportedGroup as Group

figures = st.integers(0, 2**40)
counts = st.dictionaries(st.sampled_from(["290", "291", "-3", "große Modelle"]), figures, max_size=3)
histograms: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(
    lambda zero, counts: {"zero": zero, "counts": counts}, figures, counts
)
small = st.integers(0, 10**9)  # what one bucket may say of a group
groups = st.dictionaries(st.sampled_from(["0", "7", "31"]), st.builds(Group, small, small), max_size=3)
shadows: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(
    lambda n, routes: {"decisions": n, "routes": routes}, figures, counts
)


@st.composite
def _contributions(draw: st.DrawFn) -> Contribution:
    minute = datetime(2026, 11, 25, tzinfo=UTC)
    key = RouteKey(
        1, draw(st.integers(1, 2)), minute, "", -1, "baseline", 1, draw(st.sampled_from("ab")), "", ""
    )
    details = (
        draw(histograms), draw(histograms), draw(groups), draw(counts), draw(counts), draw(shadows), draw(counts),
    )  # fmt: skip
    return Contribution(key, draw(st.lists(figures, min_size=len(NUMBERS), max_size=len(NUMBERS))), details)


def _sums(contributions: list[Contribution]) -> dict[RouteKey, RunningTotals]:
    sums: dict[RouteKey, RunningTotals] = {}
    add_up(contributions, sums)
    return sums


def _plain(sums: dict[Any, RunningTotals]) -> dict[Any, Any]:
    return {key: (one.numbers, one.details) for key, one in sums.items()}


@given(st.lists(_contributions(), max_size=6), st.integers(0, 6))
def test_it_adds_up_the_same_in_one_go_and_in_two(contributions: list[Contribution], cut: int) -> None:
    before = copy.deepcopy(contributions)
    sums = _sums(contributions[:cut])
    add_up(contributions[cut:], sums)
    assert _plain(sums) == _plain(_sums(contributions)) == _plain(_sums(contributions[::-1]))
    assert contributions == before


@given(st.lists(_contributions(), max_size=6))
def test_it_adds_up_an_arm_over_its_routes(contributions: list[Contribution]) -> None:
    arms = by_arm(_sums(contributions))
    alike = [one._replace(key=one.key._replace(endpoint="", rule="", model="")) for one in contributions]
    assert _plain(arms) == {key.of_arm(): sums for key, sums in _plain(_sums(alike)).items()}


@given(st.lists(_contributions(), max_size=3))
def test_it_reads_a_contribution_as_it_was_packed(contributions: list[Contribution]) -> None:
    packed = msgspec.msgpack.encode(contributions)
    assert msgspec.msgpack.decode(packed, type=list[Contribution]) == contributions


def test_it_adds_each_kind_of_map() -> None:
    key = RouteKey(1, 1, datetime(2026, 11, 25, tzinfo=UTC), "", -1, "baseline", 1, "", "", "")
    one = Contribution(
        key,
        [1] * len(NUMBERS),
        (
            {"zero": 1, "counts": {"7": 2}}, {}, {"0": Group(3, 1)}, {"small": 4}, {"timeout": 5},
            {"decisions": 6, "routes": {"a>b": 7}}, {"n": 8},
        ),
    )  # fmt: skip
    other = one._replace(
        details=(
            {"zero": 0, "counts": {"8": 1}}, {"zero": 2, "counts": {}}, {"0": Group(1, 0), "1": Group(1, 1)},
            {"large": 1}, {"timeout": 1}, {"decisions": 1, "routes": {"a>b": 1, "a>a": 1}}, {"n": 1},
        )
    )  # fmt: skip
    sums = _sums([one, other])[key]
    assert sums.numbers == [2] * len(NUMBERS)
    assert sums.details == (
        {"zero": 1, "counts": {"7": 2, "8": 1}}, {"zero": 2, "counts": {}}, {"0": Group(4, 1), "1": Group(1, 1)},
        {"small": 4, "large": 1}, {"timeout": 6}, {"decisions": 7, "routes": {"a>b": 8, "a>a": 1}}, {"n": 9},
    )  # fmt: skip
