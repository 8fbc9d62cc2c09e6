"""Shutdown of a server: nothing acknowledged is lost, and no client is left waiting."""

import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import connections

from controlplane.core import clock
from rollout_app.models import ArmTotals
from rollout_app.outcomes import store
from tests.support.plane import PATIENCE_S, Plane, Served, Server, until
from tests.support.reports import batch, bucket

OUTCOMES = "/router/v1/outcomes"
ROUTES = 10


def test_it_answers_long_polls_and_reports_not_ready(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    until(lambda: plane.get("/readyz?exclude=engine").status == 200)
    poll = plane.begin("/router/v1/snapshot", served.key, if_none_match=tag, prefer="wait=30")
    until(lambda: plane.gateway.snapshots.held.total() == 1)
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    assert poll.result(PATIENCE_S).status == 304
    refused = plane.get("/readyz")
    assert (refused.status, refused.code) == (503, "unavailable")
    # New requests are still served, but not held.
    began = time.monotonic()
    assert plane.snapshot(served.key, if_none_match=tag, prefer="wait=30").status == 304
    assert time.monotonic() - began < 25


def test_it_ends_at_once_although_routers_are_waiting(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with (
        Server() as server,
        httpx.Client(headers=headers, timeout=PATIENCE_S) as client,
        ThreadPoolExecutor(20) as pool,
    ):
        url = f"{server.url}/router/v1/snapshot"
        waiting = {"If-None-Match": client.get(url).headers["etag"], "Prefer": "wait=30"}
        polls = [pool.submit(client.get, url, headers=waiting) for _ in range(20)]
        until(lambda: re.search(r"long_polls_held\{.*\} 20\.0", client.get(f"{server.url}/metrics").text))
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert {poll.result(PATIENCE_S).status_code for poll in polls} == {304}
        assert time.monotonic() - began < 25  # less than they asked to wait
        server.process.wait(PATIENCE_S)


def test_it_leaves_no_connection_to_the_database(served: Served) -> None:
    with Plane() as plane:
        assert plane.post(OUTCOMES, served.key, batch(bucket(served.assignment))).status == 202
        used = plane.gateway.ingest._lookups.submit(lambda: connections["default"]).result(PATIENCE_S)
        assert used.connection is not None
    assert used.connection is None


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_neither_loses_nor_doubles_what_it_acknowledged(served: Served, how: signal.Signals) -> None:
    """The server ends under load. Routers resend what got no answer, and some of what did, to the next server."""
    acknowledged, left = _report_until_it_ends(served, how)
    assert acknowledged
    with Server() as server, httpx.Client(headers=_headers(served), timeout=PATIENCE_S) as client:
        for document in left + acknowledged[::10]:
            assert client.post(f"{server.url}{OUTCOMES}", json=document).status_code == 202
    # Any other process counts a killed process's groups after some seconds; the test does not wait for that.
    while store.flush_abandoned(clock.now() + timedelta(minutes=1))[0]:
        pass
    assert ArmTotals.objects.get().tasks == 118 * ROUTES * len(acknowledged + left)


def _headers(served: Served) -> dict[str, str]:
    return {"Authorization": f"Bearer {served.key}"}


def _report_until_it_ends(
    served: Served, how: signal.Signals
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Report from 32 routers while the server ends. Return the batches that got a 202, and the others."""
    # Ten routes each, so that a group of several batches is large enough to be stored and counted later.
    buckets = [bucket(served.assignment, endpoint=f"/{n}") for n in range(ROUTES)]
    ended = threading.Event()
    acknowledged: list[dict[str, Any]] = []
    left: list[dict[str, Any]] = []

    def report(url: str) -> None:
        with httpx.Client(headers=_headers(served), timeout=PATIENCE_S) as client:
            while not ended.is_set():
                document = batch(*buckets)
                try:
                    answer = client.post(url, json=document)
                except httpx.HTTPError:
                    left.append(document)
                    break
                (acknowledged if answer.status_code == 202 else left).append(document)

    with Server() as server, ThreadPoolExecutor(32) as pool:
        routers = [pool.submit(report, f"{server.url}{OUTCOMES}") for _ in range(32)]
        until(lambda: len(acknowledged) >= 32)
        if how == signal.SIGKILL:
            os.killpg(server.process.pid, how)
        else:
            server.process.send_signal(how)
        server.process.wait(PATIENCE_S)
        ended.set()
        for router in routers:
            router.result(PATIENCE_S)
    return acknowledged, left
