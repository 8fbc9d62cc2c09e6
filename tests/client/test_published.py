"""Snapshots polled from a CDN in front of a bucket: it gets no key, and only the signature is trusted."""

import base64
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from pointsman import ConfigurationError, Router
from pointsman.sync import acks as acks_of
from pointsman.testing import FakeControlPlane
from pointsman.testing.server import FakeServer, Reply, Request
from tests.client.policies import always, two_stage
from tests.client.watching import eventually


@dataclass
class Bucket:
    """One object behind HTTP, like S3: with its own ETag, and its metadata as headers."""

    signed_as: str = "x-amz-meta-pointsman-signature"
    tagged_as: str = "x-amz-meta-pointsman-etag"
    body: bytes | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    failing: Reply | None = None

    def __post_init__(self) -> None:
        self._server = FakeServer(self._answer)

    @property
    def url(self) -> str:
        return f"{self._server.url}/prod"

    @property
    def md5(self) -> str:
        return f'"{hashlib.md5(self.body or b"", usedforsecurity=False).hexdigest()}"'

    def publish(self, plane: FakeControlPlane) -> None:
        headers = {"Authorization": f"Bearer {plane.key}"}
        whole = httpx.get(f"{plane.url}/router/v1/snapshot", headers=headers)
        plane.requests.clear()
        self.metadata = {
            self.signed_as: whole.headers["Pointsman-Signature"],
            self.tagged_as: whole.headers["ETag"],
        }
        self.body = whole.content

    def _answer(self, request: Request) -> Reply:
        self.requests.append(request)
        if self.failing is not None:
            return self.failing
        if self.body is None or request.path != "/prod/router/v1/snapshot":
            return Reply(403, b"<Error><Code>AccessDenied</Code></Error>")
        if request.headers.get("If-None-Match") == self.md5:
            return Reply(304, b"", {"ETag": self.md5})
        return Reply(200, self.body, {"ETag": self.md5, **self.metadata})

    def __enter__(self) -> "Bucket":
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane(sign=True) as plane:
        plane.poll_interval_ms = 200
        plane.serve("summaries", two_stage())
        yield plane


@pytest.fixture
def bucket(plane: FakeControlPlane) -> Iterator[Bucket]:
    with Bucket() as bucket:
        bucket.publish(plane)
        yield bucket


def follow(plane: FakeControlPlane, bucket: Bucket, **options: Any) -> Router:
    return plane.router(**{"snapshots_url": bucket.url, "public_keys": plane.public_keys, **options})


def test_it_polls_there_and_reports_to_the_control_plane(plane: FakeControlPlane, bucket: Bucket) -> None:
    with follow(plane, bucket) as router:
        router.record(router.decide("summaries"), success=True)
        router.feedback("1.x", "satisfaction", score=0.5)
        assert plane.wait_for(lambda: plane.tasks("summaries") == 1 and plane.feedback and plane.acks)
        plane.serve("summaries", always("large"), version=2)
        bucket.publish(plane)
        assert eventually(lambda: router.revision == 2)
        assert router.decide("summaries").model == "vendor/large"
    assert not [request for request in plane.requests if request.path.endswith("/snapshot")]
    assert {request.path for request in bucket.requests} == {"/prod/router/v1/snapshot"}


def test_it_sends_the_cdn_an_etag_but_no_credentials(plane: FakeControlPlane, bucket: Bucket) -> None:
    http = {"auth": ("user", "password"), "cookies": {"session": "s"}}
    with follow(plane, bucket, http=http):
        assert eventually(lambda: len(bucket.requests) >= 3)
    first, *later = bucket.requests
    assert "If-None-Match" not in first.headers
    assert {request.headers["If-None-Match"] for request in later} == {bucket.md5}
    for request in bucket.requests:
        assert request.query == {}
        for name in ("Authorization", "Cookie", "Prefer", "Pointsman-Router", "Pointsman-Client"):
            assert name not in request.headers


def test_it_polls_at_the_interval(plane: FakeControlPlane, bucket: Bucket) -> None:
    began = time.monotonic()
    with follow(plane, bucket) as router:
        assert eventually(lambda: len(bucket.requests) >= 5)
        assert time.monotonic() - began >= 4 * 0.16
        assert router.status()["snapshots_applied"] == 1


@pytest.mark.parametrize(
    "name", ["Pointsman-Signature", "x-amz-meta-pointsman-signature", "x-goog-meta-pointsman-signature"]
)
def test_it_finds_the_signature(plane: FakeControlPlane, name: str) -> None:
    with Bucket(signed_as=name) as bucket:
        bucket.publish(plane)
        with follow(plane, bucket) as router:
            assert router.revision == 1


@pytest.mark.parametrize("name", ["x-amz-meta-pointsman-etag", "x-goog-meta-pointsman-etag"])
def test_it_refuses_a_tag_of_another_revision(plane: FakeControlPlane, name: str) -> None:
    with Bucket(tagged_as=name) as bucket:
        bucket.publish(plane)
        bucket.metadata[name] = f'"{plane.epoch}.7.0123456789abcdef"'
        with follow(plane, bucket, ready=False) as router:
            assert eventually(lambda: "etag_mismatch" in (router.status()["last_error"] or ""))
            assert not router.ready


def test_it_polls_without_etag_metadata_on_the_object(plane: FakeControlPlane, bucket: Bucket) -> None:
    del bucket.metadata[bucket.tagged_as]
    with follow(plane, bucket):
        assert eventually(lambda: len(bucket.requests) >= 2)
    assert bucket.requests[-1].headers["If-None-Match"] == bucket.md5


@pytest.mark.parametrize("how", ["unsigned", "altered", "by a stranger"])
def test_it_trusts_only_the_signature(plane: FakeControlPlane, bucket: Bucket, how: str) -> None:
    with follow(plane, bucket) as router:
        plane.serve("summaries", always("large"), version=2)
        with FakeControlPlane(sign=True, epoch=plane.epoch) as stranger:
            stranger.revision = 1
            stranger.serve("summaries", always("large"), version=2)
            bucket.publish(stranger if how == "by a stranger" else plane)
        if how == "unsigned":
            del bucket.metadata[bucket.signed_as]
        elif how == "altered":
            assert bucket.body is not None
            bucket.body = bucket.body.replace(b'"large"', b'"small"')
        assert eventually(lambda: router.status()["snapshots_refused"])
        assert (router.revision, router.decide("summaries").model) == (1, "vendor/small")


def test_an_outdated_response_from_the_cdn_reverts_nothing(plane: FakeControlPlane, bucket: Bucket) -> None:
    older = (bucket.body, bucket.metadata)
    plane.serve("summaries", always("large"), version=2)
    bucket.publish(plane)
    with follow(plane, bucket) as router:
        newer = (bucket.body, bucket.metadata)
        bucket.body, bucket.metadata = older
        assert eventually(lambda: "lower_revision" in (router.status()["last_error"] or ""))
        assert router.revision == 2
        bucket.body, bucket.metadata = newer
        assert eventually(lambda: router.status()["last_error"] is None)


def test_it_continues_without_a_fallback_when_the_cdn_fails(plane: FakeControlPlane, bucket: Bucket) -> None:
    with follow(plane, bucket) as router:
        bucket.failing = Reply(503, b"", {"Retry-After": "30"})
        assert eventually(lambda: router.status()["poll_failures"] == 1)
        asked = len(bucket.requests)
        time.sleep(0.5)
        assert len(bucket.requests) == asked
        assert str(router.status()["last_error"]).startswith("HTTP 503 from http")
        assert router.decide("summaries").model == "vendor/small"
    assert not [request for request in plane.requests if request.path.endswith("/snapshot")]


def test_it_repeats_its_acknowledgement(
    plane: FakeControlPlane, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert acks_of.AGAIN_S * 1.2 < 90, "the control plane forgets an ack after 90 s"
    monkeypatch.setattr(acks_of, "AGAIN_S", 0.1)
    with follow(plane, bucket) as router:
        assert plane.wait_for(lambda: len(plane.acks) >= 4)
        told = {(ack["router"], ack["state"], ack["revision"]) for ack in plane.acks}
    assert told == {(router.instance, "applied", 1)}


def test_after_a_restart_it_polls_with_the_stores_tag(
    plane: FakeControlPlane, bucket: Bucket, tmp_path: Path
) -> None:
    store = tmp_path / "snapshot"
    follow(plane, bucket, store=store).close()
    bucket.requests.clear()
    with follow(plane, bucket, store=store) as router:
        assert eventually(lambda: bucket.requests)
        assert router.revision == 1
    assert bucket.requests[0].headers["If-None-Match"] == bucket.md5


def test_one_store_works_for_cdn_and_control_plane(
    plane: FakeControlPlane, bucket: Bucket, tmp_path: Path
) -> None:
    store = tmp_path / "snapshot"
    follow(plane, bucket, store=store).close()
    plane.serve("summaries", always("large"), version=2)
    with plane.router(store=store, public_keys=plane.public_keys) as router:
        assert eventually(lambda: router.revision == 2)
    plane.serve("summaries", two_stage(), version=3)
    bucket.publish(plane)
    with follow(plane, bucket, store=store) as router:
        assert eventually(lambda: router.revision == 3)


KEY = {"k": base64.b64encode(bytes(32)).decode()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"snapshots_url": "https://cdn.example"}, "public_keys"),
        ({"snapshots_url": "https://cdn.example", "public_keys": {}}, "public_keys"),
        ({"snapshots_url": "cdn.example", "public_keys": KEY}, "snapshots_url must be like"),
        ({"snapshots_url": "https://u:p@cdn.example", "public_keys": KEY}, "snapshots_url may contain only"),
        ({"snapshots_url": "https://cdn.example", "public_keys": KEY, "workloads": ["a"]}, "workloads"),
        ({"http": {"headers": {}, "timeout": 1}}, "headers, timeout"),
    ],
)
def test_it_refuses_invalid_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Router("https://pointsman.example", "pmr_x", start=False, **options)
