"""Prefork servers: a child has its own thread, and its parent's outcomes stay with its parent."""

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pointsman import Pace, Router, background
from pointsman.testing import FakeControlPlane
from tests.client.policies import always
from tests.client.watching import eventually

PATIENT = Pace(first_poll_within=0, flush_every=60, stop_within=20)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work: Callable[[], None]) -> int:
    """Fork, and return the child's pid. The child exits without pytest's cleanup, with 0 if `work` did not raise."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(90)  # a deadlock must not outlive the test
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended_well(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_it_gives_the_child_a_thread_and_leaves_the_parent_its_outcomes(plane: FakeControlPlane) -> None:
    router = plane.router(pace=PATIENT)
    for _ in range(5):
        router.record(router.decide("summaries"), success=True)
    parent = router.instance

    def child() -> None:
        assert router.instance != parent
        assert router.ready
        assert router.status()["outcomes_waiting"] == 0
        assert eventually(lambda: router.revision == 2), router.status()
        assert router.decide("summaries").model == "vendor/large", router.status()
        for _ in range(3):
            router.record(router.decide("summaries"), success=True)
        router.close()

    pid = in_child(child)
    time.sleep(0.2)
    plane.serve("summaries", always("large"), version=2)
    assert ended_well(pid)
    router.close()
    assert (plane.tasks("summaries", version=1), plane.tasks("summaries", version=2)) == (5, 3)
    named = {request.headers["Pointsman-Router"] for request in plane.requests}
    assert len(named) == 2


def test_it_never_deadlocks_a_child_whose_parent_was_recording(plane: FakeControlPlane) -> None:
    router = plane.router(pace=Pace(first_poll_within=0, flush_every=0.01, stop_within=20))
    over = threading.Event()

    def record() -> None:
        while not over.is_set():
            router.record(router.decide("summaries"), success=True)
            router.feedback("1.x", "satisfaction", score=0.5)
            router.status()

    threads = [threading.Thread(target=record) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        router.record(router.decide("summaries"), success=True)
        router.feedback("1.x", "satisfaction", score=0.5)
        assert router.status()["outcomes_recorded"] == 1
        router.close()

    try:
        pids = [in_child(child) for _ in range(10)]
        assert {ended_well(pid) for pid in pids} == {True}
    finally:
        over.set()
        for thread in threads:
            thread.join()
        router.close()


def test_it_gives_two_children_different_decision_ids(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        reading, writing = os.pipe()

        def child() -> None:
            os.write(writing, router.decide("summaries").decision_id.encode() + b"\n")

        assert {ended_well(in_child(child)) for _ in range(2)} == {True}
        os.close(writing)
        with os.fdopen(reading) as pipe:
            ids = pipe.read().split()
    assert len(set(ids)) == 2


def test_it_starts_no_thread_in_a_child_of_a_router_that_has_none() -> None:
    router = Router("http://127.0.0.1:9", "pmr_test", start=False)

    def child() -> None:
        assert not any(thread.name == "pointsman" for thread in threading.enumerate())
        router.close()

    assert ended_well(in_child(child))


class SlowLog(io.RawIOBase):
    """Writes each line slowly, and signals when it does."""

    def __init__(self) -> None:
        self.writing = threading.Event()

    def writable(self) -> bool:
        return True

    def write(self, line: object) -> int:
        self.writing.set()
        time.sleep(0.1)
        self.writing.clear()
        return len(line)  # type: ignore[arg-type]


def test_a_fork_waits_until_the_poller_has_written_its_log_line(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    slow = SlowLog()
    logger = logging.getLogger("a line for each request")
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(slow)))
    monkeypatch.setattr(logging, "raiseExceptions", False)
    caplog.set_level(logging.INFO, logger.name)
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(background, "_FORK_WAITS_S", 60)  # for a slow machine
    plane.poll_interval_ms = 100

    async def line(_: object) -> None:
        logger.info("asked")

    with plane.router(wait_s=0, http={"event_hooks": {"request": [line]}}) as router:

        def child() -> None:
            assert eventually(lambda: router.revision == 2), router.status()

        pids = []
        for _ in range(3):
            slow.writing.clear()
            assert slow.writing.wait(30)
            pids.append(in_child(child))
        plane.serve("summaries", always("large"), version=2)
        assert {ended_well(pid) for pid in pids} == {True}


def test_the_parent_continues_after_two_simultaneous_forks(plane: FakeControlPlane) -> None:
    with plane.router() as router:
        for _ in range(2):
            router._background.pause()
        for _ in range(2):
            router._background.resume()
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)


def test_it_serves_in_workers_that_a_preloading_master_forks_and_replaces(plane: FakeControlPlane) -> None:
    script = Path(__file__).with_name("prefork_process.py")
    master = subprocess.Popen(
        [sys.executable, str(script), plane.url, "3"], stdout=subprocess.PIPE, text=True
    )
    assert master.stdout is not None
    try:
        first = [int(master.stdout.readline()) for _ in range(3)]
        assert plane.wait_for(lambda: workers(plane) >= set(first))
        os.kill(first[0], signal.SIGKILL)
        replacement = int(master.stdout.readline())
        plane.serve("summaries", always("large"), version=2)
        alive = {*first[1:], replacement}
        assert plane.wait_for(lambda: workers(plane, version=2) >= alive)
        # Each process polls for itself, and acknowledges what it applied.
        assert plane.wait_for(
            lambda: all(any(f"-{pid}-" in name for name in said(plane, 2)) for pid in alive)
        )
    finally:
        master.send_signal(signal.SIGTERM)
        assert master.wait(60) == 0
        master.stdout.close()
    sums = {pid: plane.tasks("summaries", endpoint=f"/{pid}") for pid in {*first, replacement}}
    assert min(sums.values()) > 0


def said(plane: FakeControlPlane, revision: int) -> set[str]:
    """Return the routers that have acknowledged it."""
    return {ack["router"] for ack in plane.acks if ack["revision"] == revision}


def workers(plane: FakeControlPlane, **where: int) -> set[int]:
    """Return those whose outcomes have arrived."""
    found = [b for b in plane.buckets("summaries") if all(b[name] == value for name, value in where.items())]
    return {int(bucket["endpoint"].removeprefix("/")) for bucket in found}
