"""POST /router/v1/outcomes: committed before the 202, each batch once, a batch completely or not at all."""

import copy
import threading
import uuid
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import DataError, OperationalError

from rollout_app.models import AcceptedBatch, ArmTotals, OutcomeBucket
from rollout_app.outcomes import group_commit, store
from tests.support import builders
from tests.support.plane import PATIENCE_S, Answered, Plane, Served
from tests.support.reports import NOW, batch, bucket

DOOR = "/router/v1/outcomes"


def _changed(served: Served, path: str, value: Any) -> dict[str, Any]:
    """Return a bucket with the member at `a.b` set."""
    document = copy.deepcopy(bucket(served.assignment))
    *parents, last = path.split(".")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    return document


def test_it_counts_what_the_batch_reports(plane: Plane, served: Served) -> None:
    answer = plane.post(DOOR, served.key, batch(bucket(served.assignment)))
    row = OutcomeBucket.objects.get()
    assert (answer.status, answer.json()) == (202, {"accepted": 1})
    assert (row.environment, row.workload) == (served.environment, served.assignment.workload)
    assert (row.arm, row.version, row.rollout, row.stage) == ("baseline", 1, "", -1)
    assert (row.endpoint, row.rule, row.model) == ("/tickets/summary", "default", "small")
    assert (row.tasks, row.successes, row.failures, row.ungraded) == (118, 109, 9, 0)
    assert (row.errors, row.escalations, row.fallbacks, row.retries, row.attempts) == (2, 11, 1, 3, 133)
    assert (row.quality_n, row.quality_sum, row.quality_sum_sq) == (118, 104.2, 97.9)
    assert (row.cost_n, row.cost_sum, row.cost_sum_sq, row.cost_on_success) == (
        118, 51_234_000, 2.9e13, 47_000_000,
    )  # fmt: skip
    assert (row.capped_sum, row.capped_on_success) == (50_100_000, 46_000_000)
    assert row.cost_histogram == {"zero": 0, "counts": {"301": 80, "322": 38}}
    assert row.latency_histogram == {"zero": 0, "counts": {"95": 3, "101": 115}}
    assert row.groups == {"7": [4, 1]}
    assert row.tasks_by_model == {"small": 118, "large": 11}
    assert row.errors_by_kind == {"timeout": 2}


def test_it_adds_up_by_route_and_by_arm(plane: Plane, served: Served) -> None:
    one, other = bucket(served.assignment), bucket(served.assignment, endpoint="/other")
    for _ in range(3):
        plane.post(DOOR, served.key, batch(one, other, one))
    rows = {row.endpoint: row for row in OutcomeBucket.objects.all()}
    totals = ArmTotals.objects.get()
    assert {endpoint: row.tasks for endpoint, row in rows.items()} == {"/tickets/summary": 708, "/other": 354}
    assert (totals.tasks, totals.cost_sum) == (1_062, 9 * 51_234_000)
    assert totals.cost_histogram == {"zero": 0, "counts": {"301": 720, "322": 342}}
    assert totals.groups == {"7": [36, 9]}


def test_it_sums_mirrors_that_failed_and_those_skipped_by_a_brake(plane: Plane, served: Served) -> None:
    ends = {"n": 3, "both": 2, "only_baseline": 1, "failed": 1, "braked": 4}
    for mirror in (ends, {"failed": 2}, {"n": 1, "both": 1}):
        answer = plane.post(DOOR, served.key, batch(bucket(served.assignment, mirror=mirror)))
        assert answer.status == 202
    kept = ArmTotals.objects.get().mirror
    assert {name: kept[name] for name in ("n", "both", "only_baseline", "failed", "braked")} == {
        "n": 4, "both": 3, "only_baseline": 1, "failed": 3, "braked": 4
    }  # fmt: skip


def test_it_counts_a_batch_once_and_answers_the_same(plane: Plane, served: Served) -> None:
    sent = batch(bucket(served.assignment), bucket(served.assignment, rule="heavy"))
    first = plane.post(DOOR, served.key, sent)
    second = plane.post(DOOR, served.key, sent)
    shouting = plane.post(DOOR, served.key, {**sent, "batch_id": sent["batch_id"].upper()})
    assert first.json() == second.json() == shouting.json() == {"accepted": 2}
    assert ArmTotals.objects.get().tasks == 236


def test_it_counts_a_batch_once_if_sent_many_times_at_once(plane: Plane, served: Served) -> None:
    sent = [batch(bucket(served.assignment)) for _ in range(5)]
    answers: list[Future[Answered]] = []
    for document in sent * 8:
        body = msgspec.json.encode(document)
        answers.append(plane.begin(DOOR, served.key, method="POST", body=body))
    assert {answer.result(PATIENCE_S).status for answer in answers} == {202}
    assert ArmTotals.objects.get().tasks == 5 * 118
    assert AcceptedBatch.objects.count() == 5


def test_it_counts_the_same_id_from_another_environment(plane: Plane, served: Served) -> None:
    from tests.support.plane import router_key

    other = builders.environment()
    sent = batch(bucket(served.assignment))
    for key in (served.key, router_key(other.name)):
        assert plane.post(DOOR, key, sent).status == 202
    assert ArmTotals.objects.count() == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tasks", 119),
        ("tasks", -1),
        ("tasks", 118.5),
        ("tasks", True),
        ("tasks", "118"),
        ("successes", 118),
        ("errors", 119),
        ("escalations", 119),
        ("fallbacks", 119),
        ("retries", 119),
        ("attempts", -1),
        ("quality.n", 119),
        ("quality.sum", 119.0),
        ("quality.sum", -0.1),
        ("quality.sum_sq", 50.0),
        ("confidence.sum_sq", 90.0),
        ("cost_nusd.n", 117),
        ("cost_nusd.sum", 51234000.5),
        ("cost_nusd.sum_on_success", 51234001),
        ("cost_nusd.sum_sq", 1.0),
        ("cost_nusd.sum_sq", 1e30),
        ("cost_nusd.capped.sum", 51234001),
        ("cost_nusd.capped.sum_on_success", 48000000),
        ("cost_nusd.histogram.counts", {"301": 80, "322": 39}),
        ("cost_nusd.histogram.counts", {"301": 80, "322": 37}),
        ("cost_nusd.histogram.scale", 5),
        ("latency_ms.counts", {"95": 119}),
        ("latency_ms.counts", {"x": 3}),
        ("latency_ms.counts", {"99999": 3}),
        ("latency_ms.zero", -1),
        ("groups", {"32": {"tasks": 1, "failures": 0}}),
        ("groups", {"1": {"tasks": 1, "failures": 2}}),
        ("groups", {"1": {"tasks": 119, "failures": 0}}),
        ("models", {"small": 119}),
        ("errors_by_kind", {"timeout": 3}),
        ("shadow", {"decisions": 119, "agreed": 0}),
        ("shadow", {"decisions": 10, "agreed": 11}),
        ("mirror", {"n": 2, "both": 1}),
        ("mirror", {"failed": 100, "braked": 19}),
        ("arm", "other"),
        ("arm", "candidate"),
        ("stage", 1),
        ("version", 0),
        ("version", 99),
        ("version", 2**40),
        ("workload", "nobody"),
        ("workload", "nul\0"),
        ("rollout", "0192"),
        ("rollout", "9bde94fc-0fe4-4db7-8b28-d47f343ef014"),
        ("endpoint", "nul\0"),
        ("endpoint", "x" * 201),
        ("models", {"nul\0": 1}),
        ("minute", "2026-13-01T00:00:00Z"),
        ("minute", "2020-01-01T00:00:00Z"),
        pytest.param("minute", f"{NOW:%Y-%m-%dT%H:%M:00}", id="minute-somewhere"),
        pytest.param("minute", f"{NOW:%Y-%m-%dT%H:%M:07Z}", id="minute-with-seconds"),
        ("surprise", 1),
    ],
)
def test_it_refuses_an_impossible_bucket(plane: Plane, served: Served, path: str, value: Any) -> None:
    good = bucket(served.assignment)
    answer = plane.post(DOOR, served.key, batch(good, _changed(served, path, value), good))
    code = "too_old" if value == "2020-01-01T00:00:00Z" else "invalid_input"
    assert (answer.status, answer.code) == (422, code)
    assert {problem["index"] for problem in answer.json()["problems"]} == {1}
    assert not OutcomeBucket.objects.exists()
    assert not AcceptedBatch.objects.exists()


@pytest.mark.parametrize("missing", ["minute", "workload", "arm", "version", "tasks", "successes"])
def test_it_refuses_a_bucket_with_missing_members(plane: Plane, served: Served, missing: str) -> None:
    document = bucket(served.assignment)
    del document[missing]
    answer = plane.post(DOOR, served.key, batch(document))
    assert (answer.status, answer.json()["problems"][0]["index"]) == (422, 0)


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (timedelta(days=7, minutes=1), 422),
        (timedelta(days=6, hours=23, minutes=58), 202),
        (timedelta(minutes=-4), 202),
        (timedelta(minutes=-7), 503),
    ],
)
def test_it_accepts_the_minutes_of_a_week(plane: Plane, served: Served, age: timedelta, status: int) -> None:
    minute = (datetime.now(UTC) - age).strftime("%Y-%m-%dT%H:%M:00Z")
    assert plane.post(DOOR, served.key, batch(bucket(served.assignment, minute=minute))).status == status


def test_it_says_when_a_report_is_only_too_old(plane: Plane, served: Served) -> None:
    old = (datetime.now(UTC) - timedelta(days=8)).strftime("%Y-%m-%dT%H:%M:00Z")
    late, good = bucket(served.assignment, minute=old), bucket(served.assignment)
    refused = plane.post(DOOR, served.key, batch(good, late))
    assert (refused.status, refused.code) == (422, "too_old")
    assert [(p["list"], p["index"]) for p in refused.json()["problems"]] == [("buckets", 1)]
    wrong = plane.post(DOOR, served.key, batch(late, {**good, "tasks": 1}))
    assert (wrong.status, wrong.code) == (422, "invalid_input")
    assert {p["index"] for p in wrong.json()["problems"]} == {0, 1}
    assert not OutcomeBucket.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_body"),
        (b"{", 400, "malformed_body"),
        (b"\xff\xfe", 400, "malformed_body"),
        (b'{"batch_id": NaN}', 400, "malformed_body"),
        (b"[" * 100_000, 422, "invalid_input"),
        (b"[]", 422, "invalid_input"),
        (b"{}", 422, "invalid_input"),
        (b'{"batch_id": "x", "buckets": []}', 422, "invalid_input"),
        (b'{"batch_id": "x", "buckets": {}}', 422, "invalid_input"),
        (b'{"batch_id": 7, "buckets": []}', 422, "invalid_input"),
    ],
)
def test_it_refuses_a_body_that_is_not_a_batch(
    plane: Plane, served: Served, body: bytes, status: int, code: str
) -> None:
    answer = plane.post(DOOR, served.key, body)
    assert (answer.status, answer.code) == (status, code)


def test_it_refuses_what_is_too_large(plane: Plane, served: Served) -> None:
    for member in ("buckets", "decided", "cells"):
        many = plane.post(DOOR, served.key, batch() | {member: [{}] * 1_001})
        assert (many.status, many.code) == (413, "body_too_large"), member
        assert f"`$.{member}`" in many.json()["detail"]
    large = plane.post(DOOR, served.key, b" " * (1024 * 1024 + 1))
    assert (large.status, large.code) == (413, "body_too_large")
    declared = plane.begin(DOOR, served.key, method="POST", body=b"{}", content_length="99999999").result(
        PATIENCE_S
    )
    assert declared.status == 413
    assert not OutcomeBucket.objects.exists()


@pytest.mark.parametrize("decided", [{}, {"decided": None}, {"decided": []}])
def test_it_names_a_bad_bucket_whatever_else_is_there(
    plane: Plane, served: Served, decided: dict[str, Any]
) -> None:
    """Without the index, a router drops the whole batch."""
    good = bucket(served.assignment)
    answer = plane.post(DOOR, served.key, batch(good, bucket(served.assignment, tasks=-1)) | decided)
    found = [(problem["list"], problem["index"]) for problem in answer.json()["problems"]]
    assert (answer.status, found) == (422, [("buckets", 1)])
    assert plane.post(DOOR, served.key, batch(good) | decided).status == 202


def test_it_refuses_a_compressed_body(plane: Plane, served: Served) -> None:
    answer = plane.post(DOOR, served.key, batch(), content_encoding="gzip")
    assert (answer.status, answer.code) == (400, "malformed_body")


def test_it_accepts_an_empty_batch(plane: Plane, served: Served) -> None:
    assert plane.post(DOOR, served.key, batch()).json() == {"accepted": 0}


def test_it_commits_before_it_answers(plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    real = store.count

    def held(group: Any) -> store.Accepted:
        released.wait(PATIENCE_S)
        return real(group)

    monkeypatch.setattr(store, "count", held)
    body = msgspec.json.encode(batch(bucket(served.assignment)))
    answer = plane.begin(DOOR, served.key, method="POST", body=body)
    with pytest.raises(TimeoutError):
        answer.result(0.3)
    released.set()
    assert answer.result(PATIENCE_S).status == 202
    assert OutcomeBucket.objects.count() == 1


def test_it_asks_the_router_to_keep_an_unwritten_batch(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(group: Any) -> store.Accepted:
        raise OperationalError("the database is gone")

    sent = batch(bucket(served.assignment))
    with monkeypatch.context() as patched:
        patched.setattr(store, "count", away)
        refused = plane.post(DOOR, served.key, sent)
    assert (refused.status, refused.code) == (503, "unavailable")
    assert refused.headers["retry-after"] == "5"
    assert plane.post(DOOR, served.key, sent).status == 202
    assert ArmTotals.objects.get().tasks == 118


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DataError("bigint out of range"), 422),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), 422),
        (ValueError("a stored sum is no number"), 503),  # perhaps not its fault: the router keeps it
    ],
    ids=["data", "text", "value"],
)
def test_one_bad_batch_does_not_fail_the_others(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    real = store._fresh_contributions
    bad = str(uuid.uuid4())

    def overflowing(submissions: Any, fresh: Any) -> Any:
        if any(f"b:{bad}" in submission.parts for submission in submissions):
            raise error
        return real(submissions, fresh)

    monkeypatch.setattr(store, "_fresh_contributions", overflowing)
    documents = [batch(bucket(served.assignment), batch_id=bad if n == 7 else "") for n in range(20)]
    answers = [
        plane.begin(DOOR, served.key, method="POST", body=msgspec.json.encode(document))
        for document in documents
    ]
    statuses = [answer.result(PATIENCE_S).status for answer in answers]
    assert statuses == [status if n == 7 else 202 for n in range(20)]
    assert ArmTotals.objects.get().tasks == 19 * 118


@pytest.mark.parametrize("bound", ["MOST_WAITING", "MOST_WAITING_PARTS"])
def test_it_answers_429_when_too_much_is_waiting(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    released = threading.Event()
    real = store.count

    def held(group: Any) -> store.Accepted:
        released.wait(PATIENCE_S)
        return real(group)

    monkeypatch.setattr(store, "count", held)
    monkeypatch.setattr(group_commit, bound, 3)
    answers = []
    for _ in range(10):
        body = msgspec.json.encode(batch(bucket(served.assignment)))
        answers.append(plane.begin(DOOR, served.key, method="POST", body=body))
    refused = plane.until(lambda: [a.result() for a in answers if a.done()])
    released.set()
    assert {(answer.status, answer.code) for answer in refused} == {(429, "too_many_requests")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    counted = sum(answer.result(PATIENCE_S).status == 202 for answer in answers)
    assert ArmTotals.objects.get().tasks == counted * 118


def test_it_never_deadlocks_with_another_process(served: Served) -> None:
    """Two gateways write the same keys to one database in different orders."""
    buckets = [bucket(served.assignment, endpoint=f"/{n}") for n in range(20)]
    with Plane() as one, Plane() as two:
        answers = []
        for turn in range(20):
            for plane, order in ((one, buckets), (two, buckets[::-1])):
                body = msgspec.json.encode(batch(*order[turn % 5 :]))
                answers.append(plane.begin(DOOR, served.key, method="POST", body=body))
        assert {answer.result(PATIENCE_S).status for answer in answers} == {202}
    # Both have ended, so everything stored is counted.
    expected = sum(2 * (20 - turn % 5) for turn in range(20))
    assert ArmTotals.objects.get().tasks == expected * 118
    assert sum(row.tasks for row in OutcomeBucket.objects.all()) == expected * 118


def test_it_prunes_by_age(served: Served) -> None:
    with Plane() as plane:
        plane.post(DOOR, served.key, batch(bucket(served.assignment)))
    now = datetime.now(UTC)
    assert store.prune(now + timedelta(days=7)) == dict.fromkeys(
        ("OutcomeBucket", "ArmTotals", "Feedback", "AcceptedBatch", "SampledInput"), 0
    )
    assert store.prune(now + timedelta(days=9))["AcceptedBatch"] == 1
    later = store.prune(now + timedelta(days=91))
    assert (later["OutcomeBucket"], later["ArmTotals"]) == (1, 0)
    assert store.prune(now + timedelta(days=401))["ArmTotals"] == 1
