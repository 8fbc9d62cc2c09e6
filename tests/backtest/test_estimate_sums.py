"""The estimate from sums and records equals the one that is computed from a list of all tasks."""

from dataclasses import fields

import pytest

from rollout_app.backtest.doubly_robust import (
    Observation,
    ObservedSums,
    Value,
    ValueChange,
    change_of,
    estimates,
    sums,
    value_of,
)
from rollout_app.backtest.readers.compact import CompactMap
from rollout_app.backtest.tally import Interval
from tests.support import drawn_directly as direct
from tests.support.drawn import DrawnLog

LOGS = {
    "units of one task": DrawnLog(600, 0.2),
    "units of ten tasks": DrawnLog(1_200, 0.4, (0.75, 0.7), per_unit=10, unlike=0.15),
    "grades missing": DrawnLog(400, 0.2, ungraded=(0.02, 0.3)),
    "hardly a failure": DrawnLog(400, 0.2, (0.99, 0.985)),
    "too few": DrawnLog(30, 0.1),
}


def figures(found: Value | ValueChange) -> dict[str, float | None]:
    each: dict[str, float | None] = {}
    for one in fields(found):
        value = getattr(found, one.name)
        if isinstance(value, Interval):
            each |= {one.name: value.value, f"{one.name} low": value.low, f"{one.name} high": value.high}
        else:
            each[one.name] = value
    return each


def assert_same(found: Value | ValueChange, expected: Value | ValueChange) -> None:
    ours, theirs = figures(found), figures(expected)
    known = {name: value for name, value in theirs.items() if value is not None}
    assert {name for name, value in ours.items() if value is not None} == set(known)
    assert {name: ours[name] for name in known} == pytest.approx(known, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("unpriced", [None, 1, 3], ids=["all priced", "none priced", "a third unpriced"])
@pytest.mark.parametrize("name", LOGS)
def test_it_is_the_estimate_from_all_tasks(name: str, unpriced: int | None) -> None:
    ours, theirs = LOGS[name].draw(5)
    if unpriced is not None:
        ours = [one._replace(cost_nusd=None) if at % unpriced == 0 else one for at, one in enumerate(ours)]
    assert_same(value_of(ours), direct.value_of(ours))
    assert_same(change_of(ours, theirs), direct.change_of(ours, theirs))


def test_a_change_uses_the_tasks_that_are_informative_about_both() -> None:
    ours, theirs = LOGS["units of one task"].draw(6)
    both = [at % 4 > 0 for at in range(len(ours))]
    with ObservedSums() as first, ObservedSums() as second:
        for one, other, common in zip(ours, theirs, both, strict=True):
            second.add(one, 3 if common else 2)
            if common:
                first.add(other, 3)
        (its, nothing), (value, change) = estimates([first, second])
    assert its is not None and value is not None and change is not None and nothing is None
    common_ours = [one for one, common in zip(ours, both, strict=True) if common]
    common_theirs = [one for one, common in zip(theirs, both, strict=True) if common]
    assert_same(value, direct.value_of(ours))
    assert_same(its, direct.value_of(common_theirs))
    assert_same(change, direct.change_of(common_ours, common_theirs))


def test_a_policy_without_tasks_has_no_value() -> None:
    ours, _ = LOGS["too few"].draw(1)
    with ObservedSums() as first, ObservedSums() as second:
        for one in ours:
            first.add(one, 1)
        (value, _), (none, change) = estimates([first, second])
    assert value is not None and none is None and change is None


def test_records_in_files_give_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = LOGS["units of ten tasks"].draw(7)
    expected = value_of(ours)
    monkeypatch.setattr(sums, "_IN_MEMORY", 64)
    assert value_of(ours) == expected


def test_memory_does_not_grow_with_kinds_of_tasks_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "MOST_KINDS", 50)
    with ObservedSums() as observed:
        for at in range(2_000):
            observed.add(Observation(f"u{at}", (("m",), ("m", at)), 0.5, at % 2 == 0, at % 6 == 0, 10))
        ((value, _),) = estimates([observed])
        assert len(observed.slots) <= 50 + sums.FOLDS
    assert value is not None and value.success.value == pytest.approx(1 / 3, abs=0.005)


def test_a_compact_map_knows_each_name_once() -> None:
    names = CompactMap()
    assert all(names.add(f"d-{at}", 1 + at % 3) for at in range(5_000)), "the map grows several times"
    assert not any(names.add(f"d-{at}", 9) for at in range(5_000))
    assert [names.take("d-7"), names.take("d-7"), names.take("unknown")] == [1 + 7 % 3, 0, 0]
    assert (len(names), names.left()) == (5_000, 4_999)
