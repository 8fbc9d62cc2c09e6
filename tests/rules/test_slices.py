"""The selection of endpoints and route pairs as slices, at its limits."""

import pytest

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Differing, GradedCosts, SliceSums
from rollout_app.engine.measures.slices import (
    MOST_ENDPOINTS,
    MOST_PAIRS,
    FollowedSlices,
    differing_sums,
)


def sums(tasks: int) -> SliceSums:
    return SliceSums(tasks, tasks - 1, 1, GradedCosts(tasks, tasks - 1, 10 * tasks))


def window(tasks: int, pairs: dict[str, tuple[int, int]] | None = None, **endpoints: int) -> ClosedWindow:
    """Return a window of `tasks`, half of them the candidate's; each endpoint has one candidate task."""
    arm = ArmSums(tasks=tasks // 2)
    known = {name: (sums(1), sums(n - 1)) for name, n in endpoints.items()}
    if pairs is None:
        return ClosedWindow(1, 0, 0, arm, arm, endpoints=known)
    candidate = Differing(10, {name: sums(n) for name, (n, _) in pairs.items() if n})
    baseline = Differing(10, {name: sums(n) for name, (_, n) in pairs.items() if n})
    return ClosedWindow(
        1, 0, 0, arm, arm, endpoints=known, candidate_differing=candidate, baseline_differing=baseline
    )


def test_a_single_endpoint_is_not_a_slice() -> None:
    followed = FollowedSlices()
    assert followed.take(window(100, chat=100)) == {}
    assert set(followed.take(window(100, chat=60, mail=40))) == {"endpoint chat", "endpoint mail"}


@pytest.mark.parametrize(("tasks", "name"), [(10, "endpoint mail"), (9, "endpoint (others)")])
def test_it_follows_endpoints_with_one_percent_of_a_window(tasks: int, name: str) -> None:
    found = FollowedSlices().take(window(1_000, chat=600, search=400 - tasks, mail=tasks))
    assert set(found) == {"endpoint chat", "endpoint search", name}
    assert found[name] == (sums(1), sums(tasks - 1))


def test_a_followed_endpoint_stays_followed() -> None:
    followed = FollowedSlices()
    followed.take(window(100, chat=50, mail=50))
    assert "endpoint mail" in followed.take(window(1_000, chat=999, mail=2))


def test_all_others_are_merged() -> None:
    found = FollowedSlices().take(window(10_000, chat=5_000, search=4_800, a=60, b=70, c=70))
    assert found["endpoint (others)"] == (sums(1) + sums(1) + sums(1), sums(59) + sums(69) + sums(69))


def test_it_follows_only_the_largest_up_to_the_limit() -> None:
    followed = FollowedSlices()
    names = {f"e{i:02}": 100 + i for i in range(MOST_ENDPOINTS + 3)}
    followed.take(window(1_000, None, **names))
    assert followed.endpoints == sorted(names, reverse=True)[:MOST_ENDPOINTS]
    followed.take(window(1_000, later=900))
    assert "later" not in followed.endpoints
    pairs = {f"a>{i}": (20, 20) for i in range(MOST_PAIRS + 2)}
    found = followed.take(window(1_000, pairs))
    assert followed.pairs == sorted(pairs)[:MOST_PAIRS], "of equal endpoints, the first by name"
    assert found["pair (others)"] == (sums(20) + sums(20), sums(20) + sums(20))


def test_a_pair_of_one_arm_has_no_tasks_in_the_other() -> None:
    found = FollowedSlices().take(window(100, {"a>b": (40, 50), "a>c": (5, 0), "c>b": (0, 5)}))
    assert found == {
        "pair a>b": (sums(40), sums(50)),
        "pair a>c": (sums(5), SliceSums()),
        "pair c>b": (SliceSums(), sums(5)),
    }


def test_pairs_are_unknown_if_an_arm_does_not_report_them() -> None:
    one = Differing(10, {"a>b": sums(6), "a>c": sums(4)})
    arm = ArmSums(tasks=50)
    assert FollowedSlices().take(ClosedWindow(1, 0, 0, arm, arm, candidate_differing=one)) == {}


def test_it_sums_the_differing_tasks_of_both_arms() -> None:
    found = differing_sums(window(100, {"a>b": (40, 50), "a>c": (5, 0), "c>b": (0, 5)}))
    assert found == (sums(40) + sums(5), sums(50) + sums(5))
    known, arm, none = Differing(10, {"a>b": sums(6)}), ArmSums(tasks=50), ArmSums()
    assert differing_sums(ClosedWindow(1, 0, 0, arm, arm, candidate_differing=known)) is None
    assert differing_sums(ClosedWindow(1, 0, 0, none, none)) is None
    quiet = ClosedWindow(1, 0, 0, none, arm, baseline_differing=known)
    assert differing_sums(quiet) == (SliceSums(), sums(6)), "an arm without tasks need not report"


def test_it_is_the_same_after_storage() -> None:
    followed = FollowedSlices()
    followed.take(window(100, {"a>b": (40, 50), "a>c": (5, 0)}, chat=60, mail=40))
    again = FollowedSlices.load(followed.dump())
    assert (again.endpoints, again.pairs) == (["chat", "mail"], ["a>b", "a>c"])
    assert again.dump() == followed.dump()


def test_it_follows_twelve_endpoints_and_eight_pairs() -> None:
    """The largest ones are followed; all others are merged."""
    followed = FollowedSlices()
    pairs = {f"p{at:02}": (40 - at, 40 - at) for at in range(10)}
    followed.take(window(2_000, pairs, **{f"e{at:02}": 90 - at for at in range(14)}))
    assert followed.endpoints == [f"e{at:02}" for at in range(12)]
    assert followed.pairs == [f"p{at:02}" for at in range(8)]
