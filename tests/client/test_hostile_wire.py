"""Failing connections, and headers and files that no correct control plane sends, are reported and survived."""

import gzip
import hashlib
import json
import resource
import threading
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pointsman import ConfigurationError, Pace, Router
from pointsman.sync.store import MAGIC, DiskStore
from pointsman.sync.transport import Answer, _retry_after
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import always
from tests.client.watching import eventually

AT_ONCE = Pace(first_poll_within=0, flush_every=0.02)


def last_error(router: Router) -> str:
    assert eventually(lambda: router.status()["last_error"])
    return str(router.status()["last_error"])


def test_it_keeps_polling_after_an_etag_that_cannot_be_sent_back(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    def odd(request: Request, reply: Reply) -> Reply:
        return replace(reply, headers={**reply.headers, "ETag": '"caf\xe9"'}) if reply.body else reply

    plane.tamper = odd
    with plane.router(store=tmp_path / "snapshot") as router:
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)


def test_it_accepts_a_key_with_a_trailing_line_break(plane: FakeControlPlane) -> None:
    with Router(plane.url, plane.key + "\n", pace=AT_ONCE) as router:
        assert router.wait_ready(10)


def test_it_explains_a_bad_key_without_showing_it(plane: FakeControlPlane) -> None:
    with pytest.raises(ConfigurationError, match="characters that no key has") as refused:
        Router(plane.url, "pmr_se\ncret", start=False)
    assert "cret" not in str(refused.value)
    with Router(plane.url, lambda: "pmr_se\ncret", pace=AT_ONCE) as router:
        said = last_error(router)
    assert "no usable key: it has characters" in said
    assert "cret" not in said


def test_it_reports_an_unusable_proxy_and_tries_again(
    plane: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("ALL_PROXY", "gopher://127.0.0.1:1")
        patched.delenv("NO_PROXY", raising=False)
        patched.delenv("no_proxy", raising=False)
        router = Router(plane.url, plane.key, pace=AT_ONCE)
        assert "no connection can be made" in last_error(router)
    try:
        assert eventually(lambda: router.ready, 30)
    finally:
        router.close()


@pytest.mark.parametrize("url", ["http://x:99999", "http://[::1", "http://:80", "ftp://x", "x"])
def test_it_refuses_an_invalid_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be like"):
        Router(url, "pmr_test", start=False)


@pytest.mark.parametrize(
    "value",
    ["Mon, 01 Jan 99999999999999999999 00:00:00 GMT", "x", "", "Mon, 32 Jan 2026 00:00:00 GMT", "nan"],
)
def test_it_ignores_an_invalid_retry_after(value: str) -> None:
    assert _retry_after(value) is None


def test_it_ignores_an_unreadable_problem() -> None:
    assert Answer(422, b"[" * 200_000).bad_entries == set()


@pytest.mark.parametrize(
    "index",
    [
        [7],
        {"a": 1},
        [{"length": 1}],
        [{"etag": 7, "signature": None, "length": 2}],
        [{"etag": "\xe9", "signature": None, "length": 2}],
        [{"etag": None, "signature": None, "length": "2"}],
    ],
)
def test_it_starts_despite_a_foreign_store(tmp_path: Path, index: Any) -> None:
    rest = json.dumps(index).encode() + b"\n{}"
    path = tmp_path / "snapshot"
    path.write_bytes(MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest)
    store = DiskStore(path)
    assert store.load() == []
    assert store.problem is not None
    router = Router("http://127.0.0.1:9", "pmr_test", start=False, store=path)
    assert not router.ready


def test_it_rejects_only_the_workload_with_an_infinite_share(plane: FakeControlPlane) -> None:
    def endless(request: Request, reply: Reply) -> Reply:
        return replace(reply, body=reply.body.replace(b'"share_pcm": 777', b'"share_pcm": 1e999'))

    plane.tamper = endless
    with plane.router() as router:
        plane.roll_out("summaries", always("large"), mode="percentage", share_pcm=777)
        plane.serve("other", always("large"))
        assert eventually(lambda: "other" in router._good.current.workloads)  # type: ignore[union-attr]
        assert router.decide("summaries").model == "vendor/small"
        assert router.status()["rejected"] == ["summaries"]


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """A gigabyte compressed to a megabyte, and again: some kilobytes."""
    deflater = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    piece = bytes(1 << 20)
    once = b"".join([deflater.compress(piece) for _ in range(1_024)]) + deflater.flush()
    return gzip.compress(once)


@pytest.mark.parametrize("coding", ["gzip", "gzip, gzip", "deflate", "br, gzip"])
def test_it_decompresses_no_more_than_the_limit(
    plane: FakeControlPlane, bomb: bytes, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    sent = threading.Event()

    def inflated(request: Request, reply: Reply) -> Reply:
        if sent.is_set() or "snapshot" not in request.path:
            return reply
        sent.set()
        body = bomb if coding != "gzip" else gzip.decompress(bomb)
        return replace(reply, status=200, body=body, raw=True, headers={"Content-Encoding": coding})

    plane.tamper = inflated
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with plane.router() as router:
        assert router.wait_ready(30)  # by the next poll
        assert sent.is_set()
        assert "over the limit" in caplog.text or "not requested" in caplog.text
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 200 * 1024


def test_it_reads_a_response_to_outcomes_only_up_to_a_limit(plane: FakeControlPlane) -> None:
    def endless(request: Request, reply: Reply) -> Reply:
        return replace(reply, body=b"[" * (2 << 20)) if "outcomes" in request.path else reply

    plane.tamper = endless
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["outcomes_accepted"] == 1)
