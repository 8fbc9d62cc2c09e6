"""Joining minutes into strata."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout_app.engine.evidence import ArmSums, ClosedWindow, MinuteRow
from rollout_app.engine.windows import close_windows, closes_before

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
NOON = int(NOW.timestamp() // 60)


def row(minute: int, tasks: int, *, stage: int = 1) -> MinuteRow:
    return MinuteRow(stage, minute, ArmSums(tasks=tasks // 5), ArmSums(tasks=tasks - tasks // 5))


def spans(strata: list[ClosedWindow]) -> list[tuple[int, int]]:
    return [(stratum.first_minute, stratum.last_minute) for stratum in strata]


def test_it_closes_a_minute_with_fifty_tasks() -> None:
    strata, cursors = close_windows([row(0, 49), row(1, 1), row(2, 50)], before=3, cursors={})
    assert spans(strata) == [(0, 1), (2, 2)]
    assert cursors == {1: 3}


def test_it_leaves_an_open_window_for_the_next_call() -> None:
    strata, cursors = close_windows([row(0, 50), row(1, 49)], before=2, cursors={})
    assert spans(strata) == [(0, 0)]
    assert cursors == {1: 1}


def test_it_closes_a_thin_window_after_an_hour() -> None:
    thin = [row(minute, 1) for minute in range(0, 60, 20)]
    assert close_windows(thin, before=59, cursors={})[0] == []
    assert spans(close_windows(thin, before=60, cursors={})[0]) == [(0, 40)]
    assert spans(close_windows([*thin, row(60, 1)], before=61, cursors={})[0]) == [(0, 40)]


def test_it_never_joins_two_stages() -> None:
    strata, cursors = close_windows([row(0, 30), row(0, 60, stage=2), row(1, 30)], before=2, cursors={})
    assert [(stratum.stage, *span) for stratum, span in zip(strata, spans(strata), strict=True)] == [
        (1, 0, 1),
        (2, 0, 0),
    ]
    assert cursors == {1: 2, 2: 1}


def test_it_ignores_late_and_open_minutes() -> None:
    strata, cursors = close_windows([row(4, 90), row(5, 90), row(6, 90)], before=6, cursors={1: 5})
    assert spans(strata) == [(5, 5)]
    assert cursors == {1: 6}


@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 80), st.integers(1, 2)),
        max_size=40,
        unique_by=lambda m: (m[0], m[2]),
    ),
    st.lists(st.integers(0, 260), max_size=5),
)
def test_it_forms_the_same_strata_in_one_call_or_many(
    minutes: list[tuple[int, int, int]], looks: list[int]
) -> None:
    rows = [row(minute, tasks, stage=stage) for minute, tasks, stage in minutes]
    at_once, end = close_windows(rows, before=300, cursors={})
    bit_by_bit: list[ClosedWindow] = []
    cursors: dict[int, int] = {}
    for before in (*sorted(looks), 300):
        strata, cursors = close_windows(rows, before=before, cursors=cursors)
        bit_by_bit += strata
    key = lambda stratum: (stratum.stage, stratum.first_minute)  # noqa: E731
    assert sorted(bit_by_bit, key=key) == sorted(at_once, key=key)
    assert cursors == end
    assert sum(s.candidate.tasks + s.baseline.tasks for s in at_once) == sum(tasks for _, tasks, _ in minutes)


@pytest.mark.parametrize(
    ("newest", "quiet_s", "lag_s", "closed"),
    [
        (NOON, 5, 0, NOON),  # this minute is still open
        (NOON, 5, 900, NOON - 15),
        (NOON + 5, 5, 0, NOON),  # a router's clock runs ahead
        (NOON - 600, 5, 0, NOON - 600),  # a replay keeps its own time
        (NOON - 600, 59, 0, NOON - 600),
        (NOON - 600, 61, 0, NOON),  # it is over
        (NOON - 3, 61, 900, NOON - 18),
        (NOON - 3, 961, 900, NOON - 15),
    ],
)
def test_it_closes_by_timestamps_or_without_reports_by_the_clock(
    newest: int, quiet_s: int, lag_s: int, closed: int
) -> None:
    received = NOW - timedelta(seconds=quiet_s)
    assert closes_before(now=NOW, lag_s=lag_s, newest_minute=newest, last_received_at=received) == closed
