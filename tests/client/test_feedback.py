"""Feedback is kept until it is acknowledged: in memory, in the spool, within limits."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pointsman import Pace
from pointsman.reporting.batch import feedback_batch
from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.spool import Spool
from pointsman.testing import FakeControlPlane, Reply, Request
from pointsman.testing.server import problem
from tests.client.watching import eventually

PATIENT = Pace(first_poll_within=0, flush_every=60, stop_within=20)


def word(number: int) -> dict[str, Any]:
    return {"decision_id": f"1.{number}", "kind": "satisfaction", "score": 0.5}


def sent(queue: FeedbackQueue) -> list[dict[str, Any]]:
    queue.seal()
    found = []
    while words := queue.oldest():
        found += json.loads(words.body)["feedback"]
        queue.accept(words)
    return found


def test_it_returns_feedback_in_order_and_within_the_limits_of_the_protocol() -> None:
    queue = FeedbackQueue()
    for number in range(1_234):
        queue.put(word(number))
    queue.seal()
    first = queue.oldest()
    assert first is not None
    assert first.count == 500
    assert len(queue) == 1_234
    assert sent(queue) == [word(number) for number in range(1_234)]
    assert (len(queue), queue.dropped) == (0, 0)


def test_feedback_being_queued_counts_as_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, waiting = FeedbackQueue(), list[int]()
    queue.put(word(1))

    def cut(*given: Any) -> Any:
        waiting.append(len(queue))
        return feedback_batch(*given)

    monkeypatch.setattr("pointsman.reporting.feedback.feedback_batch", cut)
    queue.seal()
    assert (waiting, len(queue)) == ([1], 1)


def test_it_also_splits_by_size() -> None:
    queue = FeedbackQueue()
    for _ in range(600):
        queue.put({"decision_id": "x" * 4_000, "kind": "satisfaction", "score": 1})
    queue.seal()
    while words := queue.oldest():
        assert len(words.body) <= 1 << 20
        queue.accept(words)


def test_it_keeps_the_newest_when_there_is_no_room() -> None:
    queue = FeedbackQueue(limit=10)
    for number in range(25):
        queue.put(word(number))
    assert (len(queue), queue.dropped) == (10, 15)
    assert sent(queue) == [word(number) for number in range(15, 25)]


def test_it_limits_the_feedback_in_memory() -> None:
    queue = FeedbackQueue(max_bytes=2_000)
    for number in range(100):
        queue.put(word(number))
        queue.seal()
    assert len(queue) < 40
    assert len(queue) + queue.dropped == 100
    assert sent(queue)[-1] == word(99)


def test_it_drops_only_the_refused_feedback() -> None:
    queue = FeedbackQueue()
    for number in range(50):
        queue.put(word(number))
    queue.seal()
    taken = []
    while words := queue.oldest():
        said = json.loads(words.body)["feedback"]
        if word(13) in said:
            queue.refuse(words)
        else:
            taken += said
            queue.accept(words)
    assert sorted(w["decision_id"] for w in taken) == sorted(f"1.{n}" for n in range(50) if n != 13)
    assert queue.dropped == 1


def test_feedback_beyond_the_memory_limit_is_spooled_to_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path, orphaned_after_s=0)
    queue = FeedbackQueue(max_bytes=300, spool=spool.feedback())
    for number in range(20):
        queue.put(word(number))
        queue.seal()
    assert queue.dropped == 0
    found = sent(queue)
    while len(found) < 20:
        queue.adopt()
        found += sent(queue)
    assert sorted(w["decision_id"] for w in found) == sorted(f"1.{n}" for n in range(20))
    assert list(tmp_path.iterdir()) == []


def test_it_limits_the_disk_space_and_counts_drops(tmp_path: Path) -> None:
    queue = FeedbackQueue(spool=Spool(tmp_path, max_bytes=8_000).feedback())
    for number in range(50):
        queue.put(word(number))
        queue.seal()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1_000
    kept = sum(len(json.loads(file.read_bytes())["feedback"]) for file in tmp_path.iterdir())
    assert queue.dropped == 0, "memory still holds them"
    queue.abandon()
    assert queue.dropped == 50 - kept > 0


def test_it_removes_a_damaged_file_and_ignores_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "0b0e8a30-0000-4000-8000-000000000000.feedback").write_text('{"feedback": [')
    others = tmp_path / "notes.feedback"
    others.write_text('{"feedback": []}')
    queue = FeedbackQueue(spool=Spool(tmp_path, orphaned_after_s=0).feedback())
    queue.adopt()
    assert (queue.oldest(), list(tmp_path.iterdir())) == (None, [others])


def test_it_continues_in_memory_if_the_disk_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    queue = FeedbackQueue(spool=Spool(tmp_path / "file").feedback())
    queue.put(word(1))
    assert sent(queue) == [word(1)]


def test_feedback_that_is_not_json_is_refused_immediately() -> None:
    queue = FeedbackQueue()
    with pytest.raises(TypeError):
        queue.put({"decision_id": object(), "kind": "satisfaction"})
    assert len(queue) == 0


def test_a_router_spools_it_in_an_outage_and_the_next_one_sends_it(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    router = plane.router(spool=tmp_path, pace=PATIENT)
    router.feedback("1.a", "human_review", success=True)
    router.feedback("1.a", "satisfaction", score=0.25)
    with plane.outage():
        router.close()
    assert router.status()["feedback_dropped"] == 0
    assert [file.suffix for file in tmp_path.iterdir()] == [".feedback"]
    with plane.router(spool=Spool(tmp_path, orphaned_after_s=0)):
        assert plane.wait_for(lambda: len(plane.feedback) == 2)
    assert {(w["decision_id"], w["kind"]) for w in plane.feedback} == {
        ("1.a", "human_review"),
        ("1.a", "satisfaction"),
    }
    assert list(tmp_path.iterdir()) == []


def test_a_router_without_a_spool_counts_what_it_could_not_send(plane: FakeControlPlane) -> None:
    router = plane.router(pace=PATIENT)
    router.feedback("1.a", "human_review", success=True)
    with plane.outage():
        router.close()
    assert router.status()["feedback_dropped"] == 1


def clock_ahead(*indexes: int) -> Reply:
    named = [{"list": "feedback", "index": n, "field": "decision_id", "message": "ahead"} for n in indexes]
    return problem(503, "clock_ahead", server_time=datetime.now(UTC).isoformat(), problems=named)


def test_feedback_on_a_task_ahead_of_the_clock_waits_and_the_rest_does_not(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A token may come from another machine, whose clock is ahead. It must not stop the feedback on other tasks."""
    monkeypatch.setattr("pointsman.reporting.sender._SET_ASIDE_S", (0.2, 3_600.0))
    ahead, taken = {"1.3", "1.7"}, list[str]()

    def answer(request: Request, reply: Reply) -> Reply:
        if not request.path.endswith("/feedback"):
            return reply
        said = [item["decision_id"] for item in request.json()["feedback"]]
        if found := [n for n, one in enumerate(said) if one in ahead]:
            return clock_ahead(*found)
        taken.extend(said)
        return reply

    plane.tamper = answer
    with plane.router() as router:
        for number in range(10):
            router.feedback(f"1.{number}", "downstream", success=True)
        assert plane.wait_for(lambda: len(taken) == 8)
        assert eventually(lambda: router.status()["feedback_waiting"] == 2)
        assert router.status()["sending_error"] is None
        ahead.clear()
        assert plane.wait_for(lambda: len(taken) == 10)
        assert eventually(lambda: router.status()["feedback_waiting"] == 0)
    assert sorted(taken) == [f"1.{number}" for number in range(10)]
    assert [line for line in caplog.messages if "whose clock was ahead" in line] != []


def test_it_divides_a_batch_by_the_items_named() -> None:
    queue = FeedbackQueue()
    for number in range(5):
        queue.put(word(number))
    queue.seal()
    batch = queue.oldest()
    assert batch is not None
    assert not queue.set_aside(batch, {5, -1}, 60, 600), "none of them is in it"
    assert queue.set_aside(batch, {1, 4}, 60, 600)
    rest = queue.oldest()
    assert rest is not None
    assert json.loads(rest.body)["feedback"] == [word(number) for number in (0, 2, 3)]
    queue.accept(rest)
    assert (queue.oldest(), len(queue)) == (None, 2)


def test_what_is_due_again_meanwhile_waits_for_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """With enough batches the first was due again before the last was sent: outcomes never got their turn."""
    now = 1_000.0
    monkeypatch.setattr("pointsman.reporting.outbox.monotonic", lambda: now)
    queue, began, sent_in_round = FeedbackQueue(), now, 0
    for number in range(3):
        queue.put(word(number))
        queue.seal()
    while batch := queue.oldest(began):
        assert queue.set_aside(batch, {0}, 30, 100)
        sent_in_round += 1
        now += 20
    assert sent_in_round == 3
    assert queue.oldest() is not None, "it is due by now"


def test_what_is_set_aside_again_waits_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000.0
    monkeypatch.setattr("pointsman.reporting.outbox.monotonic", lambda: now)
    queue, waits = FeedbackQueue(), []
    queue.put(word(1))
    queue.seal()
    for _round in range(4):
        began = now
        while (batch := queue.oldest()) is None:
            now += 1
        waits.append(now - began)
        queue.set_aside(batch, {0}, 30, 100)
    assert waits == [0, 30, 60, 100]
