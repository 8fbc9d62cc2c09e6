"""GET /router/v1/snapshot: bytes, tags, signature, encodings, selections."""

import asyncio
import base64
import gzip
import hashlib
import re
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
import zstandard
from django.test.utils import CaptureQueriesContext

from controlplane.access import actions as keys
from controlplane.access.keyring import Keyring
from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.fleet.buffer import FleetBuffer
from policies_app.models import Router
from policies_app.snapshots import build, cache
from policies_app.snapshots.serving import SnapshotService
from tests.support import builders
from tests.support.plane import PATIENCE_S, Answered, Plane, Served, key_row, router_key


def test_it_serves_the_environment_in_the_protocols_format(plane: Plane, served: Served) -> None:
    answer = plane.snapshot(served.key)
    document = answer.json()
    served.environment.refresh_from_db()

    assert answer.status == 200
    assert document["format"] == 1
    assert document["environment"] == served.environment.name
    assert (document["epoch"], document["revision"]) == (served.environment.epoch, 1)
    assert (document["full"], document["removed"], document["poll_interval_ms"]) == (True, [], 10_000)
    entry = document["workloads"][served.assignment.workload.name]
    assert entry["baseline"]["policy"] == served.assignment.baseline.document
    assert (entry["candidate"], entry["rollout"], entry["pin"]) == (None, None, None)


def test_it_tags_and_signs_the_exact_body(plane: Plane, served: Served) -> None:
    answer = plane.snapshot(served.key)
    digest = hashlib.sha256(answer.body).hexdigest()[:16]
    signature = re.fullmatch(r"keyid=(\w+), alg=ed25519, sig=(\S+)", answer.headers["pointsman-signature"])

    assert answer.headers["etag"] == f'"{served.environment.epoch}.1.{digest}"'
    assert answer.headers["cache-control"] == "private, max-age=1, stale-if-error=604800"
    assert answer.headers["pointsman-revision"] == "1"
    assert signature
    assert signature[1] == signing.key_id()
    public = signing.private_key().public_key()
    public.verify(base64.b64decode(signature[2]), b"pointsman.snapshot.v1\n" + answer.body)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*", '"a.b", W/{}'])
def test_it_answers_304_when_the_tag_matches(plane: Plane, served: Served, form: str) -> None:
    full = plane.snapshot(served.key)
    answer = plane.snapshot(served.key, if_none_match=form.format(full.headers["etag"]))

    assert (answer.status, answer.body) == (304, b"")
    shared = ("etag", "cache-control", "pointsman-revision", "pointsman-signature")
    assert {name: answer.headers[name] for name in shared} == {name: full.headers[name] for name in shared}


@pytest.mark.parametrize("tag", ['"x"', "", "nonsense", '"0.1.0123456789abcdef"'])
def test_it_answers_200_when_no_tag_matches(plane: Plane, served: Served, tag: str) -> None:
    assert plane.snapshot(served.key, if_none_match=tag).status == 200


def test_it_makes_a_new_tag_for_each_revision(plane: Plane, served: Served) -> None:
    first = plane.snapshot(served.key).headers["etag"]
    actions.pin(served.assignment, "large", actor=SYSTEM, reason="the small one is down")
    answer = plane.until(lambda: (a := plane.snapshot(served.key, if_none_match=first)).status == 200 and a)

    assert isinstance(answer, Answered)
    entry = answer.json()["workloads"][served.assignment.workload.name]
    assert entry["pin"] == {"model": "large", "reason": "the small one is down"}
    assert answer.headers["etag"].split(".")[1] == "2"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("gzip, zstd", "zstd"),
        ("zstd;q=0, gzip", "gzip"),
        ("br", None),
        ("gzip;q=0.0", None),
    ],
)
def test_it_uses_an_encoding_that_the_router_accepts(
    plane: Plane, served: Served, accepted: str, encoding: str | None
) -> None:
    plain = plane.snapshot(served.key)
    answer = plane.snapshot(served.key, accept_encoding=accepted)
    decompress: Any = {"gzip": gzip.decompress, "zstd": zstandard.decompress, None: bytes}[encoding]

    assert answer.headers.get("content-encoding") == encoding
    assert decompress(answer.body) == plain.body
    assert answer.headers["etag"] == plain.headers["etag"]
    assert int(answer.headers["content-length"]) == len(answer.body)


def test_it_serves_only_the_requested_workloads(plane: Plane, served: Served) -> None:
    other = builders.served(served.environment, builders.workload()).workload.name
    mine = served.assignment.workload.name
    plane.until(lambda: len(plane.snapshot(served.key).json()["workloads"]) == 2)

    one = plane.snapshot(served.key, f"?workload={mine}")
    both = plane.snapshot(served.key, f"?workload={mine}&workload={other}&workload=nobody")
    assert set(one.json()["workloads"]) == {mine}
    assert set(both.json()["workloads"]) == {mine, other}
    # The tag covers the selection.
    assert plane.snapshot(served.key, if_none_match=one.headers["etag"]).status == 200
    assert plane.snapshot(served.key, f"?workload={mine}", if_none_match=one.headers["etag"]).status == 304


def test_it_serves_a_limited_key_only_its_workloads(plane: Plane, served: Served) -> None:
    other = builders.served(served.environment, builders.workload()).workload.name
    mine = served.assignment.workload.name
    limited = router_key(served.environment.name, workloads=[mine])
    plane.until(lambda: len(plane.snapshot(served.key).json()["workloads"]) == 2)

    assert set(plane.snapshot(limited).json()["workloads"]) == {mine}
    assert plane.snapshot(limited, f"?workload={other}").json()["workloads"] == {}


def test_it_does_not_query_the_database(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = plane.snapshot(served.key)
    monkeypatch.setattr(build, "plain_body", None)  # it builds nothing either
    again = plane.snapshot(served.key)
    unchanged = plane.snapshot(served.key, if_none_match=full.headers["etag"])
    assert (again.body, unchanged.status) == (full.body, 304)


def test_a_repeated_poll_gets_a_current_answer(plane: Plane, served: Served) -> None:
    """Repeated requests on a connection are parsed once and share a stored 304, but the answer is not fixed."""
    tag = plane.snapshot(served.key).headers["etag"]
    headers = {"Authorization": f"Bearer {served.key}", "If-None-Match": tag, "Pointsman-Router": "r-1"}
    with httpx.Client(base_url=f"http://127.0.0.1:{plane.port}", headers=headers) as router:

        def poll() -> httpx.Response:
            return router.get("/router/v1/snapshot")

        assert [poll().status_code for _ in range(4)] == [304] * 4
        actions.pin(served.assignment, "large", actor=SYSTEM, reason="the small one is down")
        newer = plane.until(lambda: (answer := poll()).status_code == 200 and answer)
        assert isinstance(newer, httpx.Response)
        assert [newer.json()["revision"], *(poll().status_code for _ in range(2))] == [2, 200, 200]

        router.headers["If-None-Match"] = newer.headers["etag"]
        assert [poll().status_code for _ in range(4)] == [304] * 4
        keys.revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        plane.until(lambda: poll().status_code == 401)
    plane.until(lambda: Router.objects.filter(instance="r-1").exists())


def test_it_builds_a_large_body_once_for_concurrent_requests(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies_app.snapshots.serving.BUILT_INLINE", 0)
    built = []
    real = build.signed_body
    monkeypatch.setattr(build, "signed_body", lambda *args: built.append(args) or real(*args))  # type: ignore[func-returns-value]
    asked: list[Future[Answered]] = [plane.begin("/router/v1/snapshot", served.key) for _ in range(20)]

    assert {answer.result(PATIENCE_S).status for answer in asked} == {200}
    assert len(built) == 1


def test_a_finished_body_is_cached_before_its_build_ends(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request at the moment when the build ends must find the body. Otherwise it would be built again."""
    monkeypatch.setattr("policies_app.snapshots.serving.BUILT_INLINE", 0)
    cached = cache.read_environment(cache.read_headers()[served.environment.name], None)
    assert cached is not None
    query, service = cache.SnapshotQuery(None, None), SnapshotService(Keyring(), FleetBuffer())
    found = []

    async def ask() -> None:
        first = asyncio.create_task(service._built(cached, query))
        await asyncio.sleep(0)
        cached.in_flight[query].add_done_callback(
            lambda _: found.append(query in cached.bodies or query in cached.in_flight)
        )
        await first

    asyncio.run(ask())
    assert found == [True]


def test_it_reads_header_and_fragments_in_one_statement(served: Served) -> None:
    from django.db import connection

    header = cache.read_headers()[served.environment.name]
    with CaptureQueriesContext(connection) as queries:
        cached = cache.read_environment(header, None)
    assert cached is not None
    assert cached.header.revision == 1
    assert len(queries) == 1


def test_it_hides_a_deleted_environment(plane: Plane, served: Served) -> None:
    key = router_key("nowhere")
    answer = plane.snapshot(key)
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("query", ["?since=-1", "?since=x", "?since=1.5", "?since=" + "9" * 30])
def test_it_refuses_a_since_that_is_not_a_revision(plane: Plane, served: Served, query: str) -> None:
    answer = plane.snapshot(served.key, query)
    assert (answer.status, answer.code) == (422, "invalid_input")


def test_it_passes_other_requests_to_django(plane: Plane, served: Served) -> None:
    assert plane.get("/console/").status == 418
    assert plane.get("/router/v2/snapshot").status == 418
    assert plane.get("/router/v1/nothing", served.key).code == "not_found"
    wrong = plane.post("/router/v1/snapshot", served.key, {})
    assert (wrong.status, wrong.headers["allow"]) == (405, "GET")
