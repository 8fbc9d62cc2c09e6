"""The wall clock jumps forward and back; the policy stays as stale as it is, and outcomes get through."""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pointsman import Router
from pointsman.reporting import outbox
from pointsman.reporting.batch import FeedbackBatch
from pointsman.sync import last_known_good
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.watching import eventually

DAY = 86_400.0


class Clocks:
    """A wall clock that can be set, and one that only runs."""

    def __init__(self) -> None:
        self.wall, self.running = time.time(), 1_000.0

    def passed(self, seconds: float) -> None:
        self.wall += seconds
        self.running += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(last_known_good, "time", lambda: clocks.wall)
    monkeypatch.setattr(last_known_good, "monotonic", lambda: clocks.running)
    return clocks


def stale(router: Router) -> float:
    return float(round(router.status()["staleness_s"]))


def test_a_clock_that_was_set_back_does_not_make_the_policy_fresh(
    plane: FakeControlPlane, clocks: Clocks
) -> None:
    with plane.router() as router, plane.outage():
        clocks.passed(300)
        clocks.wall -= DAY
        assert stale(router) == 300
        clocks.passed(60)
        assert stale(router) == 360


def test_time_in_which_the_machine_slept_counts(plane: FakeControlPlane, clocks: Clocks) -> None:
    with plane.router() as router, plane.outage():
        clocks.wall += 3_600  # the running clock of Linux stands still meanwhile
        assert stale(router) == 3_600


def test_a_file_from_the_future_ages_from_the_start(
    plane: FakeControlPlane, tmp_path: Path, clocks: Clocks
) -> None:
    """It was written while the clock was ahead."""
    path = tmp_path / "snapshot"
    plane.router(store=path).close()
    os.utime(path, (clocks.wall + DAY, clocks.wall + DAY))
    router = Router("http://127.0.0.1:9", "pmr_test", start=False, store=path)
    assert stale(router) == 0
    clocks.passed(600)
    assert stale(router) == 600


def test_a_file_is_as_old_as_its_last_confirmation(
    plane: FakeControlPlane, tmp_path: Path, clocks: Clocks
) -> None:
    path = tmp_path / "snapshot"
    plane.router(store=path).close()
    os.utime(path, (clocks.wall - 500, clocks.wall - 500))
    router = Router("http://127.0.0.1:9", "pmr_test", start=False, store=path)
    clocks.passed(100)
    assert stale(router) == 600


def ahead_of(request: Request, reply: Reply) -> Reply:
    """Refuse what a control plane refuses: minutes more than five minutes ahead of its clock."""
    if not request.path.endswith("/outcomes"):
        return reply
    entries = [entry for part in request.json().values() if isinstance(part, list) for entry in part]
    minutes = [datetime.fromisoformat(entry["minute"]).timestamp() for entry in entries]
    if max(minutes) <= time.time() + 300:
        return reply
    body = {"code": "clock_ahead", "server_time": datetime.now(UTC).isoformat()}
    return Reply(503, json.dumps(body).encode(), {"Retry-After": "0"})


def test_what_was_recorded_under_a_wrong_clock_does_not_hold_up_the_rest(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    """The machine started with its clock a day ahead, and corrected it."""
    ahead = DAY

    def refused(request: Request, reply: Reply) -> Reply:
        changed = ahead_of(request, reply)
        if changed is not reply:
            plane.batches.pop(request.json()["batch_id"], None)  # the fake has no clock, and counted it
        return changed

    plane.tamper = refused
    with plane.router(clock=lambda: time.time() + ahead) as router:
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: "was recorded while" in caplog.text)
        ahead = 0.0
        for accepted in (1, 2):
            router.record(router.decide("summaries"), success=True)
            assert eventually(lambda n=accepted: router.status()["outcomes_accepted"] == n)  # type: ignore[misc]
        status = router.status()
        assert (status["outcomes_waiting"], status["outcomes_dropped"]) == (1, 0)
        assert (status["sending_error"], status["clock_ahead_s"]) == (None, None)
    assert router.status()["outcomes_dropped"] == 1, "it has no spool"
    assert caplog.text.count("was recorded while") == 1


def test_a_batch_that_was_set_aside_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(outbox, "monotonic", lambda: now)
    queue: outbox.Outbox[FeedbackBatch] = outbox.Outbox(100)
    first, second = (FeedbackBatch(name, b"x" * 40, 1) for name in ("first", "second"))
    queue.put(first)
    queue.put(second)
    assert queue.postpone(first, 30) is True
    assert queue.oldest() == second
    now = 131.0
    assert queue.oldest() == first
    assert queue.postpone(first, 30) is False, "it was set aside before"
    queue.forget(second)
    assert (queue.oldest(), queue.count) == (None, 1)
    queue.put(first)
    queue.put(FeedbackBatch("third", b"x" * 40, 1))
    assert queue.dropped == 0, "one batch takes its room only once"
