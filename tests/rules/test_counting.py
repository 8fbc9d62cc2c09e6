"""Adding up contributions: order and grouping make no difference, and the inputs are not modified."""

import copy
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.outcomes.aggregate import (
    ARM_ONLY_NUMBERS,
    MOST_SLICES,
    NUMBERS,
    OTHER,
    SLICE,
    ArmContribution,
    ArmKey,
    Contribution,
    RouteKey,
    Totals,
)
from rollout_app.outcomes.schemas import ReportedGroup as Group

figures: st.SearchStrategy[Any] = st.integers(0, 2**40)
counts = st.dictionaries(st.sampled_from(["290", "291", "-3", "große Modelle"]), figures, max_size=3)
histograms: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(
    lambda zero, counts: {"zero": zero, "counts": counts}, figures, counts
)
small = st.integers(0, 10**9)  # what one bucket may report for a group
groups = st.dictionaries(st.sampled_from(["0", "7", "31"]), st.builds(Group, small, small), max_size=3)
shadows: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.builds(
    lambda n, routes: {"decisions": n, "routes": routes}, figures, counts
)


figure_lists = st.lists(figures, min_size=len(SLICE), max_size=len(SLICE))
slices = st.dictionaries(st.sampled_from(["a>b", "same"]), figure_lists, max_size=2)


@st.composite
def _contributions(draw: st.DrawFn) -> Contribution:
    minute = datetime(2026, 11, 25, tzinfo=UTC)
    key = RouteKey(
        1, draw(st.integers(1, 2)), minute, "", -1, "baseline", 1, draw(st.sampled_from("ab")), "", ""
    )
    details = (
        draw(histograms), draw(histograms), draw(groups), draw(counts), draw(counts), draw(shadows), draw(counts),
        draw(slices),
    )  # fmt: skip
    return Contribution(key, draw(st.lists(figures, min_size=len(NUMBERS), max_size=len(NUMBERS))), details)


@st.composite
def _arm_contributions(draw: st.DrawFn) -> ArmContribution:
    key = draw(_contributions()).key.of_arm()
    numbers = draw(st.lists(figures, min_size=len(ARM_ONLY_NUMBERS), max_size=len(ARM_ONLY_NUMBERS)))
    return ArmContribution(key, numbers, draw(groups))


reports = st.lists(_contributions() | _arm_contributions(), max_size=6)


def _totals(contributions: list[Contribution | ArmContribution]) -> Totals:
    totals = Totals()
    totals.add(contributions)
    return totals


def _plain(totals: Totals) -> Any:
    return {key: (one.numbers, one.details) for key, one in totals.routes.items()}, totals.arms


@given(reports, st.integers(0, 6))
def test_the_sum_is_the_same_in_one_step_or_two(
    contributions: list[Contribution | ArmContribution], cut: int
) -> None:
    before = copy.deepcopy(contributions)
    totals = _totals(contributions[:cut])
    totals.add(contributions[cut:])
    assert _plain(totals) == _plain(_totals(contributions)) == _plain(_totals(contributions[::-1]))
    assert contributions == before


@given(reports)
def test_it_adds_up_an_arm_over_its_routes(contributions: list[Contribution | ArmContribution]) -> None:
    alike: list[Contribution | ArmContribution] = [
        one._replace(key=one.key._replace(endpoint="", rule="", model=""))
        if isinstance(one, Contribution)
        else one
        for one in contributions
    ]
    ours, theirs = _totals(contributions).by_arm(), _totals(alike).by_arm()
    assert {key: (arm.numbers, arm.details) for key, arm in ours.items()} == {
        key: (arm.numbers, arm.details) for key, arm in theirs.items()
    }


def test_it_breaks_an_arm_down_by_endpoint_within_a_rollout() -> None:
    place = ArmKey(1, 1, datetime(2026, 11, 25, tzinfo=UTC), "r-1", 0, "candidate", 2)
    numbers: list[int | float] = list(range(len(NUMBERS)))
    nothing: Any = ({}, {}, {}, {}, {}, {}, {}, {})
    routes = [
        Contribution(RouteKey(*place, endpoint, "", ""), numbers, nothing) for endpoint in ("/a", "/b", "/a")
    ]
    decided = ArmContribution(place, [7, 5, 6], {"9": Group(3, 1)})
    (arm,) = _totals([*routes, decided]).by_arm().values()
    endpoints, cells = arm.details[8:]
    one = [numbers[NUMBERS.index(name)] for name in SLICE]
    assert endpoints == {"/a": [2 * figure for figure in one], "/b": one}
    assert arm.numbers == [*(3 * figure for figure in numbers), 7, 5, 6]
    assert cells == {"9": Group(3, 1)}


def test_it_limits_the_endpoints_and_merges_the_others() -> None:
    place = ArmKey(1, 1, datetime(2026, 11, 25, tzinfo=UTC), "r-1", 0, "candidate", 2)
    nothing: Any = ({}, {}, {}, {}, {}, {}, {}, {})
    routes = [
        Contribution(RouteKey(*place, f"/{number}", "", ""), [1] * len(NUMBERS), nothing)
        for number in range(MOST_SLICES + 3)
    ]
    (arm,) = _totals([*routes]).by_arm().values()
    endpoints = arm.details[8]
    assert (len(endpoints), endpoints[OTHER]) == (MOST_SLICES + 1, [3] * len(SLICE))


@given(st.lists(_contributions(), max_size=3))
def test_a_packed_contribution_can_be_read_back(contributions: list[Contribution]) -> None:
    packed = msgspec.msgpack.encode(contributions)
    assert msgspec.msgpack.decode(packed, type=list[Contribution]) == contributions


def test_it_adds_each_kind_of_map() -> None:
    key = RouteKey(1, 1, datetime(2026, 11, 25, tzinfo=UTC), "", -1, "baseline", 1, "", "", "")
    one = Contribution(
        key,
        [1] * len(NUMBERS),
        (
            {"zero": 1, "counts": {"7": 2}}, {}, {"0": Group(3, 1)}, {"small": 4}, {"timeout": 5},
            {"decisions": 6, "routes": {"a>b": 7}}, {"n": 8}, {"a>b": [1] * len(SLICE)},
        ),
    )  # fmt: skip
    other = one._replace(
        details=(
            {"zero": 0, "counts": {"8": 1}}, {"zero": 2, "counts": {}}, {"0": Group(1, 0), "1": Group(1, 1)},
            {"large": 1}, {"timeout": 1}, {"decisions": 1, "routes": {"a>b": 1, "a>a": 1}}, {"n": 1},
            {"a>b": [2] * len(SLICE), "same": [1] * len(SLICE)},
        )
    )  # fmt: skip
    sums = _totals([one, other]).routes[key]
    assert sums.numbers == [2] * len(NUMBERS)
    assert sums.details == (
        {"zero": 1, "counts": {"7": 2, "8": 1}}, {"zero": 2, "counts": {}}, {"0": Group(4, 1), "1": Group(1, 1)},
        {"small": 4, "large": 1}, {"timeout": 6}, {"decisions": 7, "routes": {"a>b": 8, "a>a": 1}}, {"n": 9},
        {"a>b": [3] * len(SLICE), "same": [1] * len(SLICE)},
    )  # fmt: skip
