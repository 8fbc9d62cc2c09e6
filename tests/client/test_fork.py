"""Prefork servers: the child has a thread of its own, and its parent's outcomes stay its parent's."""

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from pointsman import Pace, Router
from pointsman.testing import FakeControlPlane
from tests.client.policies import always, two_stage

PATIENT = Pace(first_poll_within=0, flush_every=60)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage())
        yield plane


def in_child(work: Callable[[], None]) -> int:
    """Fork; the child's pid. The child ends without pytest's own ending, with 0 when `work` did not raise."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.alarm(20)  # a deadlock must not outlive the test
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
        until = time.monotonic() + 10
        while router.revision != 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert router.decide("summaries").model == "vendor/large"
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
    router = plane.router(pace=Pace(first_poll_within=0, flush_every=0.01))
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
        assert not any(thread.name == "pointsman-poller" for thread in threading.enumerate())
        router.close()

    assert ended_well(in_child(child))
