"""The parts of a judgement besides its verdicts, and how minutes add up to windows."""

from typing import Any

import pytest

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Differing, Group, MinuteRow, SliceSums
from rollout_app.engine.judgement import Judgement, StageTally, UnitsSeen
from rollout_app.engine.measures.shares import ShareVerdict
from rollout_app.engine.windows import close_windows, merge_differing, merge_groups, merge_slices


def arm(tasks: int, graded: int, told: int | None = None) -> ArmSums:
    return ArmSums(tasks=tasks, successes=graded - 1, failures=1, decided=told)


def test_a_tally_counts_both_arms() -> None:
    tally = StageTally()
    tally.add(ClosedWindow(1, 7, 9, arm(10, 8, 12), arm(30, 29, 31)))
    tally.add(ClosedWindow(1, 4, 5, arm(1, 1), arm(2, 2)))
    tally.add(ClosedWindow(1, 8, 12, arm(1, 1), arm(2, 2)))
    told = {
        "candidate_tasks": 12, "baseline_tasks": 34, "strata": 3, "first_minute": 4, "last_minute": 12,
        "candidate_graded": 10, "candidate_expected": 14, "baseline_expected": 35, "baseline_graded": 33,
        "candidate_split": 14, "baseline_split": 35,
    }  # fmt: skip
    assert tally.as_dict() == told
    assert StageTally.from_dict(told) == tally


def test_an_older_tally_has_neither_decisions_nor_baseline_grades() -> None:
    older = {"candidate_tasks": 12, "baseline_tasks": 34, "strata": 3, "candidate_graded": 10}
    tally = StageTally.from_dict(older)
    assert (tally.candidate_expected, tally.baseline_expected, tally.baseline_graded) == (12, 34, 34)
    assert (tally.candidate_split, tally.baseline_split) == (12, 34)
    assert tally.candidate_graded == 10


def test_decisions_count_for_the_split_only_if_both_arms_know_theirs() -> None:
    """A router of an earlier release reports no decisions; the window's baseline is its only task."""
    tally = StageTally()
    tally.add(ClosedWindow(1, 7, 7, arm(10, 10, 12), arm(30, 30)))
    assert (tally.candidate_expected, tally.baseline_expected) == (12, 30)
    assert (tally.candidate_split, tally.baseline_split) == (10, 30)
    tally.add(ClosedWindow(1, 8, 8, ArmSums(), arm(40, 40, 50)))  # an arm without any row has no decisions
    assert (tally.candidate_split, tally.baseline_split) == (10, 80)


def share(difference: float, *, shown: bool) -> ShareVerdict:
    return ShareVerdict("late", 0.1, 0.1 - difference, 100, 100, difference, 4.0, shown)


def test_incomplete_lists_the_greatest_difference_first() -> None:
    small, large, none = share(0.02, shown=True), share(-0.3, shown=True), share(0.5, shown=False)
    judgement = Judgement((), 0.0, 0.0, {}, (small, none, large))
    assert judgement.incomplete == (large, small)


def test_the_fields_of_the_audit_entry() -> None:
    units = UnitsSeen((3, 5), 0.25, 1.5, 0.08)
    tallies = {1: StageTally(candidate_tasks=9)}
    judgement = Judgement((), float("-inf"), 1.25, tallies, (share(0.02, shown=True),), units=units)
    told = judgement.as_dict()
    assert told["log_e"] is None, "JSON has no infinity"
    assert told["srm_log_e"] == 1.25
    assert told["strata"] == {"1": tallies[1].as_dict()}
    assert told["missing"] == [share(0.02, shown=True).as_dict()]
    assert told["units"] == {"left_out": [3, 5], "share_left_out": 0.25, "deff": 1.5}
    assert told["verdicts"] == []
    assert (judgement.candidate_tasks(1), judgement.candidate_tasks(2)) == (9, 0)


def test_groups_and_slices_add_up_by_name() -> None:
    assert merge_groups([{1: Group(5, 1), 2: Group(1, 0)}, {1: Group(3, 2)}]) == {
        1: Group(8, 3),
        2: Group(1, 0),
    }
    one, two = SliceSums(5, 4, 1), SliceSums(7, 5, 2)
    found = merge_slices([{"a": (one, two)}, {"a": (two, two), "b": (one, one)}])
    assert found == {"a": (SliceSums(12, 9, 3), SliceSums(14, 10, 4)), "b": (one, one)}


def differing(known: int, tasks: int, told: int | None) -> Differing:
    return Differing(known, {"a>b": SliceSums(tasks)}, told)


@pytest.mark.parametrize(
    ("parts", "merged"),
    [
        ([(9, differing(9, 2, 3)), (5, differing(4, 1, 1))], differing(13, 3, 4)),
        # If one part does not know how many were decided, neither does the whole.
        ([(9, differing(9, 2, 3)), (5, differing(4, 1, None))], differing(13, 3, None)),
        # A minute without tasks need not report.
        ([(9, differing(9, 2, 3)), (0, None)], differing(9, 2, 3)),
        # A minute with tasks must.
        ([(9, differing(9, 2, 3)), (1, None)], None),
    ],
)
def test_differing_tasks_add_up_if_every_part_reports_them(
    parts: list[Any], merged: Differing | None
) -> None:
    assert merge_differing([(ArmSums(tasks=tasks), part) for tasks, part in parts]) == merged


def test_joined_minutes_keep_all_their_parts() -> None:
    def row(minute: int, n: int) -> MinuteRow:
        sums = SliceSums(n, n)
        return MinuteRow(
            2, minute, arm(n, n, n), arm(2 * n, n, 2 * n), {0: Group(n, 1)}, None, {"e": (sums, sums)},
            differing(n, 1, 1), differing(2 * n, 2, 2), {4: Group(n, 1)}, {5: Group(2 * n, 1)},
        )  # fmt: skip

    [window], cursors = close_windows([row(10, 8), row(11, 12)], before=12, cursors={})
    assert cursors == {2: 12}
    sums = SliceSums(20, 20)
    assert window == ClosedWindow(
        2, 10, 11, arm(8, 8, 8) + arm(12, 12, 12), arm(16, 8, 16) + arm(24, 12, 24), {0: Group(20, 2)},
        {"e": (sums, sums)}, differing(20, 2, 2), differing(40, 4, 4), {4: Group(20, 2)}, {5: Group(40, 2)},
    )  # fmt: skip
    [alone], _ = close_windows([row(10, 30)], before=11, cursors={})
    assert (alone.groups, alone.candidate_cells, alone.baseline_cells) == (
        {0: Group(30, 1)},
        {4: Group(30, 1)},
        {5: Group(60, 1)},
    )
    assert (alone.candidate_differing, alone.baseline_differing) == (differing(30, 1, 1), differing(60, 2, 2))
    assert alone.endpoints == {"e": (SliceSums(30, 30), SliceSums(30, 30))}
