"""Sticky units: which cells are excluded, at each limit, and the prediction for the baseline's cells."""

import pytest

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Group
from rollout_app.engine.measures.units import Units
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.cells import Prediction

Cells = dict[int, tuple[int, int]]


def reference(**cells: tuple[int, int, int, int]) -> Reference:
    """Return a reference; c3=(n1, x1, n2, x2) are cell 3's tasks and failures in the two halves of the past."""
    return Reference(1_000, sticky=True, cells={int(name[1:]): counts for name, counts in cells.items()})


def window(candidate: Cells, baseline: Cells, *, minute: int = 0, stage: int = 0) -> ClosedWindow:
    """Return a window whose cells account for all graded tasks."""

    def arm(cells: Cells) -> ArmSums:
        n, x = (sum(counts[i] for counts in cells.values()) for i in (0, 1))
        return ArmSums(tasks=n, successes=n - x, failures=x)

    def groups(cells: Cells) -> dict[int, Group]:
        return {cell: Group(*counts) for cell, counts in cells.items()}

    return ClosedWindow(
        stage, minute, minute, arm(candidate), arm(baseline),
        candidate_cells=groups(candidate), baseline_cells=groups(baseline),
    )  # fmt: skip


def many(n: int, each: int, first: int = 100) -> Cells:
    """Return n light cells with `each` tasks and no failures."""
    return {first + i: (each, 0) for i in range(n)}


@pytest.mark.parametrize(("tasks", "left_out"), [(50, False), (51, True)])
def test_a_cell_with_more_than_5_percent_before_the_rollout_is_excluded(tasks: int, left_out: bool) -> None:
    light = {f"c{10 + i}": (25, 0, 25, 0) for i in range(18)} | {"c99": (50 - (tasks - 50), 0, 0, 0)}
    units = Units.begin(reference(c1=(tasks, 0, 0, 0), **light))
    assert sum(n1 + n2 for n1, _, n2, _ in units.before.values()) == 1_000
    assert (1 in units.left_out) is left_out
    assert units.vary is left_out


def test_both_halves_of_the_past_count_equally() -> None:
    units = Units.begin(reference(c1=(0, 0, 60, 0), **{f"c{10 + i}": (0, 0, 47, 0) for i in range(20)}))
    assert units.left_out == {1}
    assert units.recent == {1: pytest.approx(30), **{10 + i: pytest.approx(23.5) for i in range(20)}}


def test_nothing_is_excluded_without_a_past() -> None:
    units = Units.begin(reference())
    assert (units.left_out, units.recent, units.vary, units.baseline_level) == (set(), {}, False, None)


@pytest.mark.parametrize(("tasks", "left_out"), [(26, False), (32, True)])
def test_a_cell_with_more_than_3_percent_of_the_hour_is_excluded(tasks: int, left_out: bool) -> None:
    """With 500 prior tasks, decayed by a minute, and the window's 400, the limit is 26.8, its own share included."""
    units = Units.begin(reference(**{f"c{100 + i}": (10, 0, 10, 0) for i in range(50)}))
    units.take(window({}, many(50, 8) | {1: (tasks // 4, 0)}, minute=0))
    for minute in range(1, 4):
        units.take(window({}, {1: (tasks // 4, 0)}, minute=minute))
    total = sum(units.recent.values())
    assert (units.recent[1] > 0.03 * total) is left_out
    assert (1 in units.left_out) is left_out


def test_no_cell_is_heavy_with_too_few_tasks() -> None:
    units = Units.begin(reference())
    units.take(window({}, {1: (200, 0), **many(40, 5)}))
    assert sum(units.recent.values()) == 400
    assert units.left_out == set()
    units.take(window({}, {1: (60, 0), **many(40, 2)}, minute=1))
    assert units.left_out == {1}


@pytest.mark.parametrize(
    ("tasks", "others", "left_out"),
    [
        (8, 152, True),  # a twentieth of the window
        (8, 153, False),
        (7, 40, False),  # fewer than eight
    ],
)
def test_a_new_cell_with_5_percent_of_a_window_is_excluded(tasks: int, others: int, left_out: bool) -> None:
    past = {f"c{100 + i}": (20, 0, 20, 0) for i in range(60)}
    units = Units.begin(reference(**past))
    rest = {100 + i: (others // 60 + (i < others % 60), 0) for i in range(60)}
    units.take(window({1: (tasks, 0)}, {cell: counts for cell, counts in rest.items() if counts[0]}))
    assert (1 in units.left_out) is left_out


def test_a_new_heavy_cell_is_expected_to_fail_like_the_others() -> None:
    """It has no past of its own, so the failures to expect are those of the mean."""
    units = Units.begin(reference(**{f"c{100 + i}": (20, 2, 20, 2) for i in range(60)}))
    units.take(window({1: (8, 0)}, many(60, 2)))
    assert 1 in units.left_out and 1 not in units.before
    units.take(window({}, {1: (50, 50), **many(60, 2)}, minute=1))
    assert units.baseline_level == pytest.approx(0.1)


def test_a_cell_with_earlier_traffic_is_not_new() -> None:
    past = {f"c{100 + i}": (20, 0, 20, 0) for i in range(60)} | {"c1": (30, 0, 0, 0)}
    units = Units.begin(reference(**past))
    units.take(window({1: (8, 0)}, many(60, 2)))
    assert 1 not in units.left_out


def test_recent_counts_decay_over_an_hour() -> None:
    units = Units.begin(reference())
    units.take(window({}, {1: (100, 20), 2: (100, 0)}, minute=10))
    assert units.recent == {1: 100, 2: 100}
    units.take(window({2: (50, 0)}, {1: (0, 0)}, minute=13))
    kept = (59 / 60) ** 3
    assert units.recent == {1: pytest.approx(100 * kept), 2: pytest.approx(100 * kept + 50)}
    units.take(
        window({}, {2: (1, 0)}, minute=12)
    )  # older minutes decay nothing, and do not set the clock back
    assert units.recent_minute == 13
    assert units.recent[1] == pytest.approx(100 * kept)
    units.take(window({}, {2: (1, 0)}, minute=1_013))
    assert set(units.recent) == {2}, "less than a hundredth of a task is dropped"
    assert units.tasks == {1: 100, 2: 152}
    assert units.ours == {2: 50}


def test_it_compares_similar_units() -> None:
    """Cells 1 and 2 fail half of their tasks, now and in the past; the others hardly any."""
    past = {f"c{100 + i}": (40, 1, 40, 1) for i in range(40)}
    units = Units.begin(reference(c1=(40, 20, 40, 20), c2=(40, 20, 40, 20), **past))
    assert units.prediction.kind(1) == units.prediction.kind(2) > units.prediction.kind(100)
    found = units.take(window({1: (10, 4), 100: (20, 1)}, {2: (8, 5), 101: (30, 2), 102: (5, 0)}))
    assert sorted(found) == [(10, 4, 8, 5), (20, 1, 35, 2)]


def test_it_excludes_heavy_units_from_the_comparison() -> None:
    units = Units.begin(reference(c1=(60, 6, 0, 0), **{f"c{100 + i}": (20, 1, 0, 0) for i in range(47)}))
    assert units.left_out == {1}
    assert units.take(window({1: (10, 9), 100: (4, 1)}, {1: (10, 9), 101: (4, 0)})) == [(4, 1, 4, 0)]
    assert set(units.seen) == {101}
    assert units.left_out == {1}
    of_one = 30 * 59 / 60 + 20
    assert units.share_left_out() == pytest.approx(of_one / (500 * 59 / 60 + 28))


def test_it_compares_the_baselines_cells_with_their_prediction() -> None:
    units = Units.begin(reference())
    units.prediction = Prediction(0.1, {1: 0.2, 2: 0.4}, 1.0)
    units.take(window({1: (50, 50)}, {1: (20, 5), 2: (10, 5), 3: (30, 3)}))
    level = 13 / (20 * 0.2 + 10 * 0.4 + 30 * 0.1)
    for cell, n, x, rate in ((1, 20, 5, 0.2), (2, 10, 5, 0.4), (3, 30, 3, 0.1)):
        p = rate * level
        assert units.seen[cell] == pytest.approx([n, x, n * p, n * p * (1 - p)])
    assert units.baseline_level == pytest.approx((20 * 0.2 + 10 * 0.4 + 30 * 0.1) / 60)


def test_without_a_prediction_it_uses_the_windows_own_rate() -> None:
    units = Units.begin(reference())
    units.take(window({}, {1: (20, 5), 2: (20, 1)}))
    assert units.seen[1] == pytest.approx([20, 5, 3, 3 * 0.85])
    units.take(window({}, {1: (10, 0), 3: (0, 0)}, minute=1))
    assert units.seen[1] == pytest.approx([30, 5, 3, 3 * 0.85])
    assert 3 not in units.seen, "a cell without tasks is left out"


def test_a_predicted_rate_stays_below_one() -> None:
    """A predicted rate of 1 would have no variance, so a single success would be infinitely surprising."""
    units = Units.begin(reference())
    units.prediction = Prediction(0.6, {}, 1.0)
    units.take(window({}, {1: (10, 10)}))
    assert units.seen[1] == pytest.approx([10, 10, 9.99, 9.99 * 0.001])


def test_the_level_of_a_heavy_unit_comes_from_its_own_past() -> None:
    units = Units.begin(reference(c1=(40, 20, 20, 4), **{f"c{100 + i}": (47, 2, 0, 0) for i in range(20)}))
    assert units.left_out == {1}
    units.take(window({}, {1: (10, 0)}))
    assert units.baseline_level == pytest.approx(24 / 60)


@pytest.mark.parametrize(("told", "covered"), [(95, True), (94, False), (105, True), (106, False)])
def test_cells_must_account_for_the_windows_tasks(told: int, covered: bool) -> None:
    units = Units.begin(reference())
    whole = ArmSums(tasks=100, successes=90, failures=10)
    cells = {1: Group(told // 2, 5), 2: Group(told - told // 2, 5)}
    found = units.take(ClosedWindow(0, 0, 0, ArmSums(), whole, baseline_cells=cells))
    assert units.reported
    assert found == ([(0, 0, told, 10)] if covered else [(0, 0, 100, 10)])
    assert bool(units.seen) is covered
    assert units.tasks == {1: told // 2, 2: told - told // 2}, "they are weighed nevertheless"


@pytest.mark.parametrize(("told", "covered"), [(19, True), (18, False)])
def test_cells_must_account_for_the_failures(told: int, covered: bool) -> None:
    units = Units.begin(reference())
    whole = ArmSums(tasks=100, successes=80, failures=20)
    units.take(ClosedWindow(0, 0, 0, whole, ArmSums(), candidate_cells={1: Group(100, told)}))
    assert bool(units.ours) is covered


def test_a_window_without_cells_is_not_split() -> None:
    units = Units.begin(reference())
    arm = ArmSums(tasks=10, successes=7, failures=1)
    assert units.take(ClosedWindow(0, 0, 0, arm, arm)) == [(8, 1, 8, 1)]
    assert not units.reported


def test_at_a_new_share_it_predicts_again_and_excludes_outliers() -> None:
    past = {f"c{100 + i}": (100, 10, 100, 10) for i in range(40)}
    units = Units.begin(reference(**past))
    base = {100 + i: (60, 6) for i in range(39)}
    for minute in range(10):
        units.take(window({}, base | {139: (60, 30)}, minute=minute))
    assert units.left_out == set()
    units.take(window({}, base | {139: (60, 30)}, minute=10, stage=1))
    assert units.left_out == {139}
    assert 139 not in units.prediction.rates
    assert units.prediction.mean == pytest.approx(0.1)
    assert units.stage == 1


def test_the_design_effect_is_the_scatter_beyond_the_prediction() -> None:
    units = Units.begin(reference())
    units.prediction = Prediction(0.1, {}, 1.0)
    for minute in range(4):
        units.take(window({}, {100 + i: (10, 2 * (i % 2)) for i in range(40)}, minute=minute))
    expected = 40 * ((4 - 0) ** 2 / (40 * 0.1 * 0.9)) / 39
    assert units.residual == pytest.approx(expected)
    assert units.design_effect == pytest.approx(expected), "no candidate yet: the baseline's own"


def test_spread_counts_the_empty_cells() -> None:
    units = Units.begin(reference())
    assert units.spread == 0.0
    units.take(window({}, {1: (30, 0), 2: (10, 0)}))
    some = units.spread
    units.take(window({}, many(200, 2), minute=1))
    assert 0 < units.spread < some


def test_it_is_the_same_after_storage() -> None:
    past = {f"c{100 + i}": (40, i % 5, 40, i % 5) for i in range(40)} | {"c1": (400, 200, 400, 200)}
    units = Units.begin(reference(**past))
    for minute in range(5):
        baseline = {100 + i: (6, (i + minute) % 4) for i in range(30)}
        units.take(window({101: (5, 2), 1: (5, 1)}, baseline, minute=minute, stage=minute // 3))
    again = Units.load(reference(**past), units.dump())
    assert again.dump() == units.dump()
    following = window({101: (9, 2)}, {100 + i: (6, i % 4) for i in range(30)}, minute=9, stage=2)
    assert again.take(following) == units.take(following)
    assert again.design_effect == pytest.approx(units.design_effect, abs=1e-4)
    assert (again.stage, again.reported, again.left_out) == (units.stage, True, units.left_out)
    assert again.baseline_level == pytest.approx(units.baseline_level, abs=1e-3)


@pytest.mark.parametrize(("tasks", "left_out"), [(30, False), (31, True)])
def test_a_cell_with_exactly_three_percent_is_not_heavy(tasks: int, left_out: bool) -> None:
    """30 of 1,000 tasks; with more, the cell would be heavy."""
    units = Units.begin(reference())
    units.take(window({}, {1: (tasks, 0), 99: (40 - tasks, 0), **many(96, 10)}))
    assert sum(units.recent.values()) == 1_000
    assert (1 in units.left_out) is left_out
