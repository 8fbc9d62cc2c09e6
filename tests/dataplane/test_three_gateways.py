"""Three gateway processes on one database (and, with PostgreSQL, one Redis)."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest
import redis
from django.conf import settings
from django.db.models import Sum

from controlplane.access.actions import revoke_key
from controlplane.actors import SYSTEM
from policies_app import actions, notices
from rollout_app.models import ArmTotals
from tests.dataplane.plane import PATIENCE_S, Served, Server, key_row, router_key, until
from tests.dataplane.reports import batch, bucket
from tests.services import free_port, start_redis


def test_it_is_one_control_plane(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
        urls = [f"{stack.enter_context(Server()).url}/router/v1" for _ in range(3)]

        # The same bytes, tag and signature everywhere.
        answers = [httpx.get(f"{url}/snapshot", headers=headers) for url in urls]
        assert len({(a.content, a.headers["etag"], a.headers["pointsman-signature"]) for a in answers}) == 1

        # A change wakes the routers of each, and they hold the same delta.
        waiting = headers | {"If-None-Match": answers[0].headers["etag"], "Prefer": "wait=30"}
        polls = [
            pool.submit(httpx.get, f"{url}/snapshot?since=1", headers=waiting, timeout=40) for url in urls
        ]
        actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
        deltas = [poll.result(PATIENCE_S) for poll in polls]
        assert {(delta.status_code, delta.json()["revision"]) for delta in deltas} == {(200, 2)}
        assert len({delta.headers["etag"] for delta in deltas}) == 1

        # A batch sent to all of them counts once; different ones add up, whoever takes them.
        same = batch(bucket(served.assignment))
        sent = [(url, same) for url in urls * 3] + [
            (url, batch(bucket(served.assignment))) for url in urls * 5
        ]
        reports = [
            pool.submit(httpx.post, f"{u}/outcomes", headers=headers, json=b, timeout=30) for u, b in sent
        ]
        assert {answer.result(PATIENCE_S).status_code for answer in reports} == {202}
        assert _counted() == 16 * 118

        # A revoked key is dead in each within two seconds.
        revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: {httpx.get(f"{u}/snapshot", headers=headers).status_code for u in urls} == {401}, 2)


def test_a_batch_survives_the_gateway_that_took_it(served: Served) -> None:
    """Killed at any moment, before or after the commit: the router sends it again, elsewhere, and it counts once."""
    headers = {"Authorization": f"Bearer {served.key}"}
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        first, second = (stack.enter_context(Server()) for _ in range(2))
        batches = [batch(bucket(served.assignment)) for _ in range(24)]

        def send(server: Server, document: Any) -> int:
            try:
                url = f"{server.url}/router/v1/outcomes"
                return httpx.post(url, headers=headers, json=document, timeout=20).status_code
            except httpx.HTTPError:
                return 0  # no answer: it may be in, or not

        answers = [pool.submit(send, first, document) for document in batches]
        until(lambda: any(answer.done() for answer in answers))
        os.killpg(first.process.pid, signal.SIGKILL)
        heard = [answer.result(PATIENCE_S) for answer in answers]
        assert 202 in heard
        # What was promised is in, though nobody sends it again; the rest is sent, in or not.
        rest = [document for document, status in zip(batches, heard, strict=True) if status != 202]
        assert {send(second, document) for document in rest} <= {202}
        until(lambda: _counted() == len(batches) * 118, 40)
        assert {send(second, document) for document in batches} == {202}
        time.sleep(1.5)  # as long as a process may keep a group before it is in the sums
        assert _counted() == len(batches) * 118


def _counted() -> int:
    return ArmTotals.objects.aggregate(tasks=Sum("tasks"))["tasks"] or 0


# --- Redis carries notices, and no more ----------------------------------------------------------------


@pytest.fixture
def redis_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A Redis of this test's own."""
    if not settings.REDIS_URL:
        pytest.skip("without Redis every process looks every 200 ms, as the other tests have it")
    port = free_port()
    monkeypatch.setattr(settings, "REDIS_URL", f"{start_redis(port)}/0")
    notices._client.cache_clear()
    yield port
    _shut_down(port)
    notices._client.cache_clear()


def _shut_down(port: int) -> None:
    with suppress(redis.ConnectionError):  # it is down already
        redis.Redis(port=port).shutdown(nosave=True)


def test_redis_may_come_and_go(served: Served, redis_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    aliases = iter(["large", "small"] * 20)
    with ExitStack() as stack:
        urls = [f"{stack.enter_context(Server()).url}/router/v1/snapshot" for _ in range(3)]

        def change() -> int:
            pinned = actions.pin(served.assignment, next(aliases), actor=SYSTEM, reason="now")
            return pinned.revision

        def all_have(revision: int) -> bool:
            return {httpx.get(u, headers=headers).json()["revision"] for u in urls} == {revision}

        def listeners() -> int:
            return int(redis.Redis(port=redis_port).pubsub_numsub(notices.CHANNEL)[0][1])

        # By notice: the look alone, every two seconds in each of the three, would seldom be that quick.
        until(lambda: listeners() == 3)
        quick = 0
        for _ in range(6):
            revision, began = change(), time.monotonic()
            until(lambda: all_have(revision))  # noqa: B023 — called before the next turn
            quick += time.monotonic() - began < 1
        assert quick >= 4

        # A notice that is lost: the next look has it.
        with monkeypatch.context() as patch:
            patch.setattr(notices, "send", lambda *_: None)
            revision = change()
        until(lambda: all_have(revision), 5)

        # Redis killed: changes still commit, and all three look on.
        _shut_down(redis_port)
        revision = change()
        until(lambda: all_have(revision), 5)
        revoked, other = router_key(served.environment.name), urls[0]
        until(lambda: _status(other, revoked) == 200)
        revoke_key(key_row(revoked).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: {_status(url, revoked) for url in urls} == {401}, 2)

        # And back: they listen again.
        start_redis(redis_port)
        until(lambda: listeners() == 3)
        revision = change()
        until(lambda: all_have(revision), 5)


def _status(url: str, key: str) -> int:
    return httpx.get(url, headers={"Authorization": f"Bearer {key}"}).status_code
