"""The shares of missing data at their limits, and the tasks on which two policies differ."""

import random
from dataclasses import replace

import pytest

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Differing, Late, SliceSums
from rollout_app.engine.measures.shares import Shares, decided, expected
from rollout_app.engine.stats.combine import LOG_SAFE


def arm(
    tasks: int, *, graded: int | None = None, priced: int | None = None, told: int | None = None
) -> ArmSums:
    good = tasks if graded is None else graded
    return ArmSums(tasks=tasks, successes=good, cost_n=tasks if priced is None else priced, decided=told)


def taken(candidate: ArmSums, baseline: ArmSums, windows: int = 1) -> Shares:
    shares = Shares()
    for minute in range(windows):
        shares.take(ClosedWindow(1, minute, minute, candidate, baseline))
    return shares


def counted(shares: Shares, kind: str) -> tuple[int, int, int, int]:
    stats = shares.kinds[kind]
    return stats.nt, stats.xt, stats.nc, stats.xc


def late(shares: Shares) -> tuple[int, int, int, int]:
    [found] = [verdict for verdict in shares.verdicts(1.0) if verdict.kind == "late"]
    nt, nc = found.n_candidate, found.n_baseline
    return nt, round(found.candidate * nt), nc, round(found.baseline * nc)


def late_shown(shares: Shares) -> bool:
    return any(verdict.shown for verdict in shares.verdicts(1.0) if verdict.kind == "late")


def test_it_counts_each_kind() -> None:
    shares = taken(
        arm(100, graded=90, priced=70, told=120), arm(300, graded=299, priced=300, told=310), windows=2
    )
    assert counted(shares, "ungraded") == (200, 20, 600, 2)
    assert counted(shares, "unpriced") == (200, 60, 600, 0)
    assert counted(shares, "unfinished") == (240, 40, 620, 20)
    assert (shares.tasks, shares.judged) == (800, {1: (200, 600)})


def test_nothing_is_missing_with_more_grades_or_prices_than_tasks() -> None:
    shares = taken(arm(10, graded=12, priced=13), arm(10, graded=12, priced=13))
    assert counted(shares, "ungraded") == (10, 0, 10, 0)
    assert counted(shares, "unpriced") == (10, 0, 10, 0)


@pytest.mark.parametrize(
    ("told", "known", "expects"), [(None, None, 50), (49, None, 50), (50, 50, 50), (60, 60, 60)]
)
def test_fewer_decisions_than_tasks_are_ignored(told: int | None, known: int | None, expects: int) -> None:
    assert decided(arm(50, told=told)) == known
    assert expected(arm(50, told=told)) == expects


@pytest.mark.parametrize("silent", [0, 1])
def test_unfinished_is_unknown_unless_both_arms_count_decisions(silent: int) -> None:
    arms = [arm(50, told=60), arm(50, told=60)]
    arms[silent] = replace(arms[silent], decided=None)
    candidate, baseline = arms
    assert "unfinished" not in taken(candidate, baseline).kinds


def test_a_verdict_has_the_compared_figures() -> None:
    shares = taken(arm(100, graded=80), arm(300, graded=297), windows=10)
    [ungraded] = [verdict for verdict in shares.verdicts(1.0) if verdict.kind == "ungraded"]
    assert (ungraded.candidate, ungraded.baseline) == (0.2, 0.01)
    assert (ungraded.n_candidate, ungraded.n_baseline) == (1_000, 3_000)
    assert ungraded.difference == pytest.approx(0.19)
    assert ungraded.shown and ungraded.log_e > LOG_SAFE
    assert set(ungraded.as_dict()) == {
        "kind", "candidate", "baseline", "n_candidate", "n_baseline", "difference", "log_e", "shown",
    }  # fmt: skip
    assert ungraded.as_dict()["log_e"] == ungraded.log_e
    [unpriced] = [verdict for verdict in shares.verdicts(1.0) if verdict.kind == "unpriced"]
    assert (unpriced.difference, unpriced.shown) == (0.0, False)


def test_correlated_tasks_are_weaker_evidence() -> None:
    shares = taken(arm(100, graded=95), arm(300, graded=297), windows=3)
    alone, alike = (shares.verdicts(deff)[0] for deff in (1.0, 4.0))
    assert alone.shown and not alike.shown
    assert alone.log_e > LOG_SAFE > alike.log_e


def test_it_detects_both_directions() -> None:
    fewer, more = arm(200, graded=150), arm(200, graded=200)
    one, other = (taken(*arms, windows=5).verdicts(1.0)[0] for arms in ((fewer, more), (more, fewer)))
    assert one.difference == -other.difference
    assert one.log_e == pytest.approx(other.log_e, rel=0.2)
    assert one.shown and other.shown


@pytest.mark.parametrize(("lacking", "shown"), [(9_900, True), (9_910, False)])
def test_a_difference_below_one_point_does_not_hold(lacking: int, shown: bool) -> None:
    """With ten million tasks, the difference is certain but too small."""
    shares = taken(arm(10_000, graded=lacking), arm(10_000), windows=500)
    verdict = shares.verdicts(1.0)[0]
    assert verdict.log_e > LOG_SAFE
    assert verdict.shown is shown


def test_it_counts_late_tasks_and_grades_once() -> None:
    shares = taken(arm(100), arm(300))
    assert shares.take_late({1: Late(4, 2, 6, 1)}) == [Late(4, 2, 6, 1)]
    assert late(shares) == (104, 10, 302, 3)
    assert shares.take_late({1: Late(4, 2, 6, 1)}) == []
    shares.take(ClosedWindow(1, 1, 1, arm(50), arm(70)))
    assert shares.take_late({1: Late(5, 2, 6, 4)}) == [Late(1, 0, 0, 3)]
    assert late(shares) == (155, 11, 372, 6)


def test_more_late_tasks_than_judged_ones_are_counted() -> None:
    shares = taken(arm(5), arm(5))
    shares.take_late({1: Late(9, 1), 2: Late(0, 3)})
    assert late(shares) == (14, 9, 9, 4)


def test_a_falling_count_is_ignored() -> None:
    """Counts fall if a route was removed. What else is late still counts."""
    shares = taken(arm(100), arm(100))
    shares.take_late({1: Late(4, 4)})
    assert shares.take_late({1: Late(9, 3)}) == [Late(5, 0)]
    assert late(shares) == (109, 9, 104, 4)
    assert shares.late == {1: Late(9, 4)}


def test_late_tasks_without_a_grade_count_after_late_grades() -> None:
    """The late grades of tasks in time cannot be told from those of late tasks, so their number falls."""
    shares = taken(arm(100, graded=90), arm(100, graded=90))
    shares.take_late({1: Late(0, 0, 5, 5)})
    assert shares.take_late({1: Late(30, 0, 0, 5)}) == [Late(30, 0)]
    assert late(shares) == (130, 35, 100, 5)


def test_the_late_share_falls_when_reports_are_in_time_again() -> None:
    shares = taken(arm(100), arm(100))
    shares.take_late({1: Late(60, 0)})
    for minute in range(1, 200):
        shares.take(ClosedWindow(1, minute, minute, arm(100), arm(100)))
    shares.take_late({1: Late(60, 0)})
    assert late(shares) == (20_060, 60, 20_000, 0)
    assert not late_shown(shares)


@pytest.mark.parametrize("seed", range(5))
def test_equal_late_shares_of_forty_percent_do_not_differ(seed: int) -> None:
    """Late tasks are not among those in time: counted against them alone, chance looked like a difference."""
    draw, shown = random.Random(seed), 0
    for _ in range(100):
        t, c = (sum(draw.random() < 0.4 for _ in range(1_000)) for _ in range(2))
        shares = taken(arm(1_000 - t), arm(1_000 - c))
        shares.take_late({1: Late(t, c)})
        shown += late_shown(shares)
    assert shown <= 3


def differ(known: int, tasks: int) -> Differing:
    return Differing(known, {"large>small": SliceSums(tasks=tasks)})


def with_differing(n: int, candidate: tuple[int, int], baseline: tuple[int, int], windows: int = 1) -> Shares:
    shares = Shares()
    for minute in range(windows):
        window = ClosedWindow(
            1, minute, minute, arm(n), arm(n),
            candidate_differing=differ(*candidate), baseline_differing=differ(*baseline),
        )  # fmt: skip
        shares.take(window)
    return shares


@pytest.mark.parametrize(("known", "share"), [(95, (0.2, 190)), (94, None)])
def test_nearly_all_tasks_must_report_whether_they_differ(
    known: int, share: tuple[float, int] | None
) -> None:
    shares = with_differing(100, (known, 19), (known, 19))
    assert shares.differing == share


def test_the_differing_share_is_unknown_without_tasks() -> None:
    assert Shares().differing is None
    assert with_differing(0, (0, 0), (0, 0)).differing is None
    assert taken(arm(10), arm(10)).differing is None


def test_the_differing_share_is_at_most_one() -> None:
    assert with_differing(100, (100, 130), (100, 100)).differing == (1.0, 200)


def test_both_arms_must_find_the_same_share_of_differing_tasks() -> None:
    assert with_differing(100, (100, 20), (100, 21), 20).differing_mismatch(1.0) is None
    found = with_differing(100, (100, 20), (100, 40), 20).differing_mismatch(1.0)
    assert found is not None
    assert (found.kind, found.candidate, found.baseline) == ("differing", 0.2, 0.4)
    assert with_differing(100, (100, 20), (100, 40), 20).differing_mismatch(50.0) is None
    assert Shares().differing_mismatch(1.0) is None


def test_it_is_the_same_after_storage() -> None:
    shares = with_differing(100, (100, 20), (99, 24), 3)
    shares.take(ClosedWindow(2, 9, 9, arm(40, graded=30, told=44), arm(50, priced=20, told=55)))
    shares.take_late({1: Late(3, 1, 2, 0), 2: Late(0, 0, 0, 5)})
    again = Shares.load(shares.dump())
    assert again.dump() == shares.dump()
    assert again.verdicts(1.5) == shares.verdicts(1.5)
    assert again.differing == shares.differing
    assert again.take_late({1: Late(3, 1, 2, 0), 2: Late(0, 1, 0, 5)}) == [Late(0, 1, 0, 0)]


def test_older_evidence_loads_without_shares() -> None:
    empty = Shares.load({})
    assert (empty.verdicts(1.0), empty.differing, empty.tasks) == ((), None, 0)
