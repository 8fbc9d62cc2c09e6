"""Three gateway processes on one database (and, with PostgreSQL, one Redis)."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from django.conf import settings
from django.db.models import Sum

from controlplane.access.actions import revoke_key
from controlplane.core.actors import SYSTEM
from controlplane.core.redis_or_memory import LeftAlone
from policies_app import actions
from policies_app.snapshots import notices
from rollout_app.models import ArmTotals
from tests.support.plane import PATIENCE_S, Served, Server, key_row, router_key, until
from tests.support.reports import batch, bucket
from tests.support.services import free_port, start_redis


def test_three_gateways_act_as_one_control_plane(served: Served) -> None:
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool, _client(served) as client:
        urls = [f"{stack.enter_context(Server()).url}/router/v1" for _ in range(3)]

        # The bytes, tag and signature are the same everywhere.
        answers = [client.get(f"{url}/snapshot") for url in urls]
        assert len({(a.content, a.headers["etag"], a.headers["pointsman-signature"]) for a in answers}) == 1

        # A change wakes the routers of each gateway, and they get the same delta.
        waiting = {"If-None-Match": answers[0].headers["etag"], "Prefer": "wait=30"}
        polls = [pool.submit(client.get, f"{url}/snapshot?since=1", headers=waiting) for url in urls]
        actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
        deltas = [poll.result(PATIENCE_S) for poll in polls]
        assert {(delta.status_code, delta.json()["revision"]) for delta in deltas} == {(200, 2)}
        assert len({delta.headers["etag"] for delta in deltas}) == 1

        # A batch sent to all of them counts once; different batches add up, wherever they are sent.
        same = batch(bucket(served.assignment))
        sent = [(url, same) for url in urls * 3] + [
            (url, batch(bucket(served.assignment))) for url in urls * 5
        ]
        reports = [pool.submit(client.post, f"{url}/outcomes", json=sending) for url, sending in sent]
        assert {answer.result(PATIENCE_S).status_code for answer in reports} == {202}
        until(
            lambda: _counted() == 16 * 118
        )  # a gateway with many to commit at once counts them a little later

        # A revoked key stops working in each, although no notice reports it.
        revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: {client.get(f"{url}/snapshot").status_code for url in urls} == {401})


def test_a_batch_survives_the_gateway_that_received_it(served: Served) -> None:
    """The gateway is killed at any moment, before or after the commit. The router resends to another, and it counts
    once."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool, _client(served) as client:
        first, second = (stack.enter_context(Server()) for _ in range(2))
        batches = [batch(bucket(served.assignment)) for _ in range(24)]

        def send(server: Server, document: Any) -> int:
            try:
                url = f"{server.url}/router/v1/outcomes"
                return client.post(url, json=document).status_code
            except httpx.HTTPError:
                return 0  # no answer: it may be stored or not

        answers = [pool.submit(send, first, document) for document in batches]
        until(lambda: any(answer.done() for answer in answers))
        os.killpg(first.process.pid, signal.SIGKILL)
        heard = [answer.result(PATIENCE_S) for answer in answers]
        assert 202 in heard
        # What was acknowledged is stored without being resent; the rest is resent, stored or not.
        rest = [document for document, status in zip(batches, heard, strict=True) if status != 202]
        assert {send(second, document) for document in rest} <= {202}
        until(lambda: _counted() == len(batches) * 118)
        assert {send(second, document) for document in batches} == {202}
        time.sleep(1.5)  # the longest time before a stored group is counted
        assert _counted() == len(batches) * 118


def _client(served: Served) -> httpx.Client:
    return httpx.Client(headers={"Authorization": f"Bearer {served.key}"}, timeout=PATIENCE_S)


def _counted() -> int:
    return ArmTotals.objects.aggregate(tasks=Sum("tasks"))["tasks"] or 0


# --- Redis carries only notices -----------------------------------------------------------------------


@pytest.fixture
def redis_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Start a Redis for this test."""
    port = free_port()
    monkeypatch.setattr(settings, "REDIS_URL", f"{start_redis(port)}/0")
    notices._client.cache_clear()
    monkeypatch.setattr(notices, "_left_alone", LeftAlone())
    yield port
    _shut_down(port)
    notices._client.cache_clear()


def _shut_down(port: int) -> None:
    with suppress(redis.ConnectionError):  # already down
        redis.Redis(port=port).shutdown(nosave=True)


def _listeners(redis_port: int) -> int:
    return int(redis.Redis(port=redis_port).pubsub_numsub(notices.CHANNEL)[0][1])


def test_a_notice_is_sufficient(served: Served, redis_port: int) -> None:
    """The server itself polls only once an hour."""
    script = Path(__file__).with_name("seldom_looking.py")
    with Server(program=script) as server, _client(served) as client:
        url = f"{server.url}/router/v1/snapshot"
        until(lambda: _listeners(redis_port) == 1)
        for alias in ["large", "small"] * 3:
            pinned = actions.pin(served.assignment, alias, actor=SYSTEM, reason="now")
            until(lambda: client.get(url).json()["revision"] == pinned.revision)  # noqa: B023 — at once


def test_redis_may_come_and_go(served: Served, redis_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    aliases = iter(["large", "small"] * 20)
    with ExitStack() as stack, _client(served) as client:
        urls = [f"{stack.enter_context(Server()).url}/router/v1/snapshot" for _ in range(3)]

        def change() -> int:
            pinned = actions.pin(served.assignment, next(aliases), actor=SYSTEM, reason="now")
            return pinned.revision

        def all_have(revision: int) -> bool:
            return {client.get(url).json()["revision"] for url in urls} == {revision}

        def all_answer(key: str, status: int) -> bool:
            headers = {"Authorization": f"Bearer {key}"}
            return {client.get(url, headers=headers).status_code for url in urls} == {status}

        # If a notice is lost, the next poll finds the change.
        until(lambda: _listeners(redis_port) == 3)
        with monkeypatch.context() as patch:
            patch.setattr(notices, "send", lambda *_: None)
            revision = change()
        until(lambda: all_have(revision))

        # Redis is killed: changes still commit, and all three gateways keep polling.
        _shut_down(redis_port)
        revision = change()
        until(lambda: all_have(revision))
        revoked = router_key(served.environment.name)
        until(lambda: all_answer(revoked, 200))
        revoke_key(key_row(revoked).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: all_answer(revoked, 401))

        # Redis is back: they listen again.
        start_redis(redis_port)
        until(lambda: _listeners(redis_port) == 3)
        revision = change()
        until(lambda: all_have(revision))
