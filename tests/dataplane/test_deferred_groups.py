"""Outcomes under load: a group is stored, counted a moment later, and counted once, by whichever process and despite
any failure."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import DataError, OperationalError, connection
from django.db.models import Sum, Value

from controlplane.core import clock
from rollout_app.models import ArmTotals, DeferredGroup, OutcomeBucket
from rollout_app.outcomes import group_commit, store
from rollout_app.outcomes.aggregate import NUMBERS, Contribution, Details, RouteKey
from rollout_app.outcomes.schemas import ReportedGroup
from rollout_app.outcomes.store import ABANDONED_AFTER, DeferredGroups, Submission
from rollout_app.outcomes.upserts import LARGEST, add_to_rows
from tests.support.plane import PATIENCE_S, Asked, Plane, Served, until
from tests.support.reports import NOW, batch, bucket

DOOR = "/router/v1/outcomes"
DETAILS: Details = (
    {"zero": 1, "counts": {"301": 2}}, {"zero": 0, "counts": {"95": 3}}, {"7": ReportedGroup(3, 1)},
    {"small": 3}, {"timeout": 1}, {"decisions": 3, "agreed": 2, "routes": {"a>b": 3}}, {"n": 1, "both": 1}, {},
)  # fmt: skip


def _submission(
    served: Served, *endpoints: str, figure: int = 3, batch_id: str = "", rollout: str = ""
) -> Submission:
    """Return a batch with a bucket at each endpoint, with `figure` for every number."""
    minute = NOW.replace(second=0, microsecond=0)
    place = (served.environment.pk, served.assignment.workload_id, minute, rollout, -1, "baseline", 1)
    contributions = [
        Contribution(RouteKey(*place, endpoint, "default", "small"), [figure] * len(NUMBERS), DETAILS)
        for endpoint in endpoints or ("/a",)
    ]
    return Submission(
        served.environment.pk, {f"b:{batch_id or uuid.uuid4()}": contributions}, accepted=len(contributions)
    )


def _counted() -> int:
    """Return the tasks in the totals, in which both tables agree. One statement, because a gateway may be counting."""
    by_arm = ArmTotals.objects.order_by().values(table=Value("arm")).annotate(sum=Sum("tasks"))
    by_bucket = OutcomeBucket.objects.order_by().values(table=Value("bucket")).annotate(sum=Sum("tasks"))
    sums = {row["table"]: int(row["sum"] or 0) for row in by_arm.union(by_bucket)}
    assert sums["arm"] == sums["bucket"]
    return sums["arm"]


def _later() -> datetime:
    return clock.now() + ABANDONED_AFTER + timedelta(seconds=1)


def test_it_counts_what_it_stored(served: Served) -> None:
    deferred = DeferredGroups()
    for _ in range(2):
        assert store.defer([_submission(served, "/a", "/b"), _submission(served)], deferred).answers == [2, 1]
    assert (DeferredGroup.objects.count(), _counted()) == (2, 0)
    store.flush(deferred)
    assert (DeferredGroup.objects.count(), deferred.groups, len(deferred.totals)) == (0, [], 0)
    kept = list(OutcomeBucket.objects.order_by("endpoint").values())
    OutcomeBucket.objects.all().delete()
    ArmTotals.objects.all().delete()
    for _ in range(2):
        store.count([_submission(served, "/a", "/b"), _submission(served)])
    at_once = list(OutcomeBucket.objects.order_by("endpoint").values())
    assert [row | {"id": 0} for row in kept] == [row | {"id": 0} for row in at_once]
    assert _counted() == 18


def test_it_reports_which_rollouts_changed_when_it_counts(served: Served) -> None:
    deferred = DeferredGroups()
    assert store.defer([_submission(served, rollout="r-1")], deferred).rollouts == set()
    assert store.flush(deferred) == {"r-1"}
    assert store.count([_submission(served, rollout="r-1")]).rollouts == {"r-1"}


def test_it_stores_a_batch_once(served: Served) -> None:
    deferred, one = DeferredGroups(), _submission(served, "/a", "/b", batch_id="one")
    assert store.defer([one, one], deferred).answers == [2, 2]
    again = _submission(served, batch_id="one")
    assert store.defer([again], deferred).answers == [2]
    assert store.count([again]).answers == [2]
    assert DeferredGroup.objects.count() == 1  # a group with nothing new is not stored
    store.flush(deferred)
    assert _counted() == 6


@pytest.mark.parametrize(
    ("waited", "counted"), [(timedelta(milliseconds=-1), 0), (timedelta(milliseconds=1), 3)]
)
def test_it_counts_what_a_killed_process_left(served: Served, waited: timedelta, counted: int) -> None:
    store.defer([_submission(served, rollout="r-1")], DeferredGroups())
    at = DeferredGroup.objects.get().at
    answer = store.flush_abandoned(at + ABANDONED_AFTER + waited)
    assert answer == ((1, {"r-1"}) if counted else (0, set()))
    assert (_counted(), DeferredGroup.objects.count()) == (counted, 0 if counted else 1)
    assert store.flush_abandoned(_later())[0] == (0 if counted else 1)
    assert _counted() == 3


def test_it_counts_what_was_left_under_a_clock_that_was_ahead(served: Served) -> None:
    """F10: 202 was answered, and then the process was killed and the clock put right."""
    store.defer([_submission(served)], DeferredGroups())
    DeferredGroup.objects.update(at=clock.now() + timedelta(days=1))
    assert store.flush_abandoned()[0] == 1
    assert _counted() == 3


def test_it_counts_a_group_once_although_another_process_thought_it_abandoned(served: Served) -> None:
    deferred = DeferredGroups()
    store.defer([_submission(served)], deferred)
    store.flush_abandoned(_later())
    store.defer([_submission(served)], deferred)
    assert store.flush(deferred) == set()  # one of the two is counted; the sums of both are too large
    assert (_counted(), deferred.groups) == (3, [])
    store.flush_abandoned(_later())
    assert _counted() == 6


def test_it_loses_nothing_when_it_cannot_count(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise OperationalError("the database is gone")

    deferred = DeferredGroups()
    store.defer([_submission(served)], deferred)
    with monkeypatch.context() as patched:
        patched.setattr(store, "add_to_rows", away)
        with pytest.raises(OperationalError):
            store.flush(deferred)
    assert (_counted(), DeferredGroup.objects.count(), len(deferred.totals)) == (0, 1, 0)
    store.flush_abandoned(_later())
    assert _counted() == 3


def test_it_sets_unreadable_groups_aside(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged group, or one in another release's format, must not prevent the others from being counted."""
    torn = DeferredGroup.objects.create(body=b"torn")
    store.defer([_submission(served)], DeferredGroups())
    assert store.flush_abandoned(_later())[0] == 1
    assert (_counted(), list(DeferredGroup.objects.all())) == (3, [torn])
    assert f"deferred group {torn.pk} cannot be read" in caplog.text
    assert store.flush_abandoned(_later()) == (0, set())  # not again at once
    assert store.flush_abandoned(_later() + store.RETRY_UNREADABLE_AFTER) == (0, set())
    assert DeferredGroup.objects.get() == torn


def test_it_sets_aside_what_cannot_be_counted(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One such group kept all others, whose reports had been accepted, from ever being counted."""

    def strict(model: Any, sums: Any) -> None:
        if any(getattr(key, "endpoint", "") == "/bad" for key in sums):
            raise DataError("unsupported Unicode escape sequence")
        add_to_rows(model, sums)

    monkeypatch.setattr(store, "add_to_rows", strict)
    for endpoint in ("/a", "/bad", "/b"):
        store.defer([_submission(served, endpoint)], DeferredGroups())
    assert [store.flush_abandoned(_later())[0] for _ in range(4)] == [1, 0, 1, 0]
    assert (_counted(), DeferredGroup.objects.count()) == (6, 1)
    assert "cannot be counted" in caplog.text


def test_it_stops_at_the_largest_figure(served: Served) -> None:
    """A sum that does not fit its column (larger than any honest figure) must not prevent the others from being
    counted."""
    for _ in range(3):
        store.count([_submission(served, figure=2**62), _submission(served, "/b")])
    rows = {row.endpoint: row for row in OutcomeBucket.objects.all()}
    assert (rows["/a"].tasks, rows["/a"].cost_sum, rows["/b"].tasks) == (LARGEST, LARGEST, 9)
    assert ArmTotals.objects.get().cost_sum == LARGEST


def test_concurrent_counting_never_deadlocks_and_counts_once(served: Served) -> None:
    """Threads act as processes: each stores, counts at once and settles the same keys, and all take abandoned
    groups."""
    errors: list[Exception] = []
    turns, endpoints = 12, [f"/{n}" for n in range(30)]

    def work(number: int) -> None:
        deferred = DeferredGroups()
        order = endpoints if number % 2 else endpoints[::-1]
        try:
            for turn in range(turns):
                store.defer([_submission(served, *order[turn:])], deferred)
                store.count([_submission(served, *order[: turn + 1])])
                store.flush_abandoned(_later())
                if turn % 3 == 2:
                    store.flush(deferred)
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    while store.flush_abandoned(_later())[0]:
        pass
    assert errors == []
    assert _counted() == 4 * 3 * sum(len(endpoints[turn:]) + turn + 1 for turn in range(turns))


def _asked_together(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch, batches: list[dict[str, Any]]
) -> list[Asked]:
    """Send them so that they wait together while the first is being counted."""
    released, real, load = threading.Event(), store.count, plane.gateway.ingest.load

    def held(group: Any) -> store.Accepted:
        released.wait(PATIENCE_S)
        return real(group)

    def begin(document: dict[str, Any]) -> Asked:
        return plane.begin(DOOR, served.key, method="POST", body=msgspec.json.encode(document))

    with monkeypatch.context() as patch:
        patch.setattr(store, "count", held)
        before = load().groups
        first = begin(batches[0])
        until(lambda: load().groups > before)
        others = [begin(document) for document in batches[1:]]
        until(lambda: load().waiting == len(others))
        released.set()
    return [first, *others]


def test_it_stores_large_groups_and_counts_small_ones_at_once(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    real = store.defer

    def recording(group: Any, deferred: DeferredGroups) -> store.Accepted:
        kept.append(len(group))
        return real(group, deferred)

    monkeypatch.setattr(store, "defer", recording)
    buckets = [bucket(served.assignment, endpoint=f"/{n}") for n in range(30)]
    assert plane.post(DOOR, served.key, batch(*buckets)).status == 202
    assert (_counted(), kept) == (30 * 118, [])  # one request: in the totals when it is answered
    answers = _asked_together(plane, served, monkeypatch, [batch(*buckets) for _ in range(40)])
    assert {answer.result(PATIENCE_S).status for answer in answers} == {202}
    assert kept == [39]
    until(lambda: not DeferredGroup.objects.exists())
    assert _counted() == 41 * 30 * 118


def test_it_counts_what_it_stored_before_it_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "FLUSH_AFTER_S", 60.0)
    monkeypatch.setattr(group_commit, "FLUSH_LATEST_S", 60.0)
    monkeypatch.setattr(group_commit, "DEFER_FROM", 2)
    with Plane() as plane:
        batches = [batch(bucket(served.assignment)) for _ in range(40)]
        answers = _asked_together(plane, served, monkeypatch, batches)
        assert {answer.result(PATIENCE_S).status for answer in answers} == {202}
        assert DeferredGroup.objects.exists()
    assert (DeferredGroup.objects.count(), _counted()) == (0, 40 * 118)


def test_it_looks_for_abandoned_groups(served: Served) -> None:
    store.defer([_submission(served)], DeferredGroups())
    DeferredGroup.objects.update(at=clock.now() - 2 * ABANDONED_AFTER)
    with Plane():
        until(lambda: _counted() == 3)
