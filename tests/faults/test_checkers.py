"""Each checker finds its seeded defect, and no other checker finds anything."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import checkers
from tests.faults.checkers import Checker
from tests.faults.history import Batch, Change, Counted, History, Moved, Recorded

RUNNING, PAUSED = ("running", 1), ("paused", 1)


def history() -> History:
    """A run without a violation."""
    return History(
        positions={"r-1": [("e1", 1), ("e1", 2), ("e1", 2), ("e2", 1)], "r-2": [("e1", 2)]},
        batches={"a": Batch(10, acknowledged=True), "b": Batch(5, acknowledged=True)},
        changes=[
            Change("one", acknowledged=True),
            Change("two", acknowledged=True),
            Change("no answer, and done"),
            Change("no answer, not done"),
            Change("a turn", publishes=False, acknowledged=True),
        ],
        bad_input=Counter({400: 3, 422: 1, 503: 2}),
        self_approvals=Counter({403: 2}),
        decisions=100,
        routed={
            "a": {"baseline": Counted(10, 9, 500), "candidate": Counted(2, 1, 80)},
            "b": {"baseline": Counted(5, 5, 250)},
        },
    )


def recorded() -> Recorded:
    return Recorded(
        tasks=15,
        routed={"baseline": Counted(15, 14, 750), "candidate": Counted(2, 1, 80)},
        approvers=[],
        transitions=[
            Moved("x", 1, "start", ("approved", 0), RUNNING),
            Moved("x", 2, "pause", RUNNING, PAUSED),
            Moved("y", 1, "start", ("approved", 0), RUNNING),
        ],
        entries=[
            ("assignment.pin", "one"),
            ("assignment.unpin", "two"),
            ("assignment.pin", "no answer, and done"),
            ("environment.register", "set up"),
            ("rollout.pause", "a turn"),
        ],
        revision=4,
        first_revision=1,
    )


def test_a_good_run_has_no_violations() -> None:
    assert checkers.violations(history(), recorded()) == []


Defect = Callable[[History, Recorded], Recorded]


def _history(**changes: Any) -> Defect:
    def seed(history: History, recorded: Recorded) -> Recorded:
        for name, value in changes.items():
            setattr(history, name, value)
        return recorded

    return seed


def _recorded(**changes: Any) -> Defect:
    return lambda history, recorded: replace(recorded, **changes)


def _without_entry(history: History, recorded: Recorded) -> Recorded:
    """Seed a lost change: it was acknowledged, but its entry and its revision are missing."""
    return replace(recorded, entries=recorded.entries[1:], revision=3)


def _moved(*more: Moved) -> Defect:
    return lambda history, recorded: replace(recorded, transitions=[*recorded.transitions, *more])


@pytest.mark.parametrize(
    ("checker", "defect"),
    [
        (checkers.revisions_never_fall, _history(positions={"r-1": [("e1", 2), ("e1", 1)]})),
        (checkers.snapshots_are_whole, _history(broken_snapshots=["r2: the signature does not fit"])),
        (checkers.batches_count_once, _recorded(tasks=20)),
        (checkers.batches_count_once, _recorded(tasks=10)),
        (checkers.batches_count_once, _history(batches={"a": Batch(15)})),
        (checkers.routers_lose_nothing, _recorded(routed={"baseline": Counted(15, 14, 750)})),
        (
            checkers.routers_lose_nothing,
            _recorded(routed={"baseline": Counted(15, 14, 751), "candidate": Counted(2, 1, 80)}),
        ),
        (checkers.acknowledged_changes_survive, _without_entry),
        (checkers.changes_and_entries_are_one_to_one, _recorded(revision=5)),
        (checkers.changes_and_entries_are_one_to_one, _recorded(revision=3)),
        (
            checkers.changes_and_entries_are_one_to_one,
            _recorded(entries=[*recorded().entries, ("assignment.pin", "one")], revision=5),
        ),
        (checkers.transitions_skip_nothing, _moved(Moved("y", 3, "pause", RUNNING, PAUSED))),
        (checkers.transitions_skip_nothing, _moved(Moved("y", 1, "start", ("approved", 0), RUNNING))),
        (checkers.transitions_skip_nothing, _moved(Moved("y", 2, "resume", PAUSED, RUNNING))),
        (
            checkers.nothing_advances_that_should_not,
            _moved(Moved("y", 2, "advance", RUNNING, ("running", 2))),
        ),
        (checkers.nobody_approves_their_own, _history(self_approvals=Counter({200: 1}))),
        (checkers.nobody_approves_their_own, _recorded(approvers=["anna"])),
        (checkers.the_audit_log_verifies, _recorded(audit=["entry 3: altered"])),
        (checkers.bad_input_is_refused, _history(bad_input=Counter({500: 1}))),
        (checkers.bad_input_is_refused, _history(bad_input=Counter({200: 1}))),
        (checkers.routers_route, _history(undecided=1)),
        (checkers.routers_route, _history(decisions=0)),
    ],
)
def test_a_checker_finds_its_defect(checker: Checker, defect: Defect) -> None:
    run = history()
    found = checkers.violations(run, defect(run, recorded()))
    assert {line.partition(":")[0] for line in found} == {checker.__name__}


def test_every_checker_is_tested() -> None:
    (mark,) = test_a_checker_finds_its_defect.pytestmark  # type: ignore[attr-defined]
    assert {checker for checker, _ in mark.args[1]} == set(checkers.CHECKERS)
