"""A server that is asked to end: nothing that was acknowledged is lost, nobody is left hanging."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from rollout_app.models import ArmTotals
from tests.dataplane.plane import PATIENCE_S, Plane, Served, Server, until
from tests.dataplane.reports import batch, bucket


def test_it_answers_long_polls_and_takes_readiness_down(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    assert plane.get("/readyz").status == 418  # Django's view behind answers
    poll = plane.begin("/router/v1/snapshot", served.key, if_none_match=tag, prefer="wait=30")
    until(lambda: plane.gateway.serving.held.total() == 1)
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    assert poll.result(5).status == 304
    refused = plane.get("/readyz")
    assert (refused.status, refused.code) == (503, "unavailable")
    # Whoever still comes is still served, but not held.
    began = time.monotonic()
    assert plane.snapshot(served.key, if_none_match=tag, prefer="wait=30").status == 304
    assert time.monotonic() - began < 5


def test_it_ends_at_once_although_routers_wait(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with Server() as server, ThreadPoolExecutor(20) as pool:
        url = f"{server.url}/router/v1/snapshot"
        waiting = headers | {
            "If-None-Match": httpx.get(url, headers=headers).headers["etag"],
            "Prefer": "wait=30",
        }
        polls = [pool.submit(httpx.get, url, headers=waiting, timeout=40) for _ in range(20)]
        time.sleep(1)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert {poll.result(PATIENCE_S).status_code for poll in polls} == {304}
        server.process.wait(PATIENCE_S)
        assert time.monotonic() - began < 15


def test_it_loses_nothing_that_it_acknowledged(served: Served) -> None:
    accepted = _report_until_it_ends(served, signal.SIGTERM)
    assert accepted > 0
    assert ArmTotals.objects.get().tasks >= accepted * 118


def test_it_loses_nothing_that_it_acknowledged_when_it_is_killed(served: Served) -> None:
    accepted = _report_until_it_ends(served, signal.SIGKILL)
    assert accepted > 0
    assert ArmTotals.objects.get().tasks >= accepted * 118


def _report_until_it_ends(served: Served, how: signal.Signals) -> int:
    """Report from eight routers while the server is ended; how many batches got their 202."""
    headers = {"Authorization": f"Bearer {served.key}"}
    one_minute = bucket(served.assignment)
    ended = threading.Event()

    def report(url: str) -> int:
        accepted = 0
        with httpx.Client(headers=headers, timeout=PATIENCE_S) as client:
            while not ended.is_set():
                try:
                    answer = client.post(f"{url}/router/v1/outcomes", json=batch(one_minute))
                except httpx.HTTPError:
                    break
                accepted += answer.status_code == 202
        return accepted

    with Server() as server, ThreadPoolExecutor(8) as pool:
        routers = [pool.submit(report, server.url) for _ in range(8)]
        time.sleep(1.5)
        if how == signal.SIGKILL:
            os.killpg(server.process.pid, how)
        else:
            server.process.send_signal(how)
        server.process.wait(PATIENCE_S)
        ended.set()
        return sum(router.result(PATIENCE_S) for router in routers)
