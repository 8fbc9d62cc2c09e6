"""Three gateway processes on one database (and, with PostgreSQL, one Redis)."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx

from controlplane.access.actions import revoke_key
from controlplane.actors import SYSTEM
from policies_app import actions
from rollout_app.models import ArmTotals
from tests.dataplane.plane import PATIENCE_S, Served, Server, key_row, until
from tests.dataplane.reports import batch, bucket


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
        assert ArmTotals.objects.get().tasks == 16 * 118

        # A revoked key is dead in each within two seconds.
        revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: {httpx.get(f"{u}/snapshot", headers=headers).status_code for u in urls} == {401}, 2)
