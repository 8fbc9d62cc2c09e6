"""For any ASGI server: the same answers, through ASGI messages."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Any

from controlplane.server.messages import Application
from tests.support.plane import PATIENCE_S, Plane, Served
from tests.support.reports import batch, bucket

SNAPSHOT = "/router/v1/snapshot"
Message = dict[str, Any]


class Call:
    """One request as an ASGI server makes it. More messages can be added; what was sent back is recorded."""

    def __init__(
        self, plane: Plane, path: str, key: str = "", *, method: str = "GET", **headers: str
    ) -> None:
        self._plane = plane
        self._told: asyncio.Queue[Message] = asyncio.Queue()
        self.sent: list[Message] = []
        path, _, query = path.partition("?")
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "method": method, "path": path, "query_string": query.encode(),
            "http_version": "1.1",
            "headers": [(b"host", b"localhost"), *given, (b"authorization", b"Bearer " + key.encode())],
        }  # fmt: skip
        self.over = asyncio.run_coroutine_threadsafe(
            Application(plane.gateway.answer, nullcontext)(scope, self._told.get, self._send), plane.loop
        )

    async def _send(self, message: Message) -> None:
        self.sent.append(message)

    def tell(self, **message: Any) -> Call:
        self._plane.loop.call_soon_threadsafe(self._told.put_nowait, message)
        return self

    def body(self, *pieces: bytes) -> Call:
        for number, piece in enumerate(pieces, start=1):
            self.tell(type="http.request", body=piece, more_body=number < len(pieces))
        return self

    @property
    def status(self) -> int:
        self.over.result(PATIENCE_S)
        return int(self.sent[0]["status"])

    @property
    def content(self) -> bytes:
        self.over.result(PATIENCE_S)
        assert not self.sent[-1].get("more_body")
        return b"".join(message["body"] for message in self.sent[1:])


def test_it_answers_like_granian(plane: Plane, served: Served) -> None:
    whole = plane.snapshot(served.key)
    call = Call(plane, SNAPSHOT, served.key)
    assert (call.status, call.content) == (200, whole.body)
    assert dict(call.sent[0]["headers"])[b"etag"].decode() == whole.headers["etag"]
    assert Call(plane, SNAPSHOT, served.key, if_none_match=whole.headers["etag"]).status == 304
    assert Call(plane, SNAPSHOT, "nobody").status == 401
    head = Call(plane, SNAPSHOT, served.key, method="HEAD")
    assert (head.status, head.content) == (200, b"")


def test_it_holds_a_poll_until_something_is_newer_or_the_client_hangs_up(
    plane: Plane, served: Served
) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    held = plane.gateway.snapshots.held
    first, second = (
        Call(plane, SNAPSHOT, served.key, if_none_match=tag, prefer="wait=30").body(b"") for _ in range(2)
    )
    plane.until(lambda: held.total() == 2)
    first.tell(type="http.disconnect")
    plane.until(lambda: held.total() == 1)
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    assert second.status == 304


def test_it_accepts_a_report_in_pieces(plane: Plane, served: Served) -> None:
    import msgspec

    report = msgspec.json.encode(batch(bucket(served.assignment)))
    outcomes = "/router/v1/outcomes"
    assert Call(plane, outcomes, served.key, method="POST").body(report[:50], report[50:]).status == 202
    gone = Call(plane, outcomes, served.key, method="POST").tell(
        type="http.request", body=b"{", more_body=True
    )
    gone.tell(type="http.disconnect")
    assert gone.status == 400  # nobody receives it


def test_requests_for_django_reach_django(plane: Plane) -> None:
    call = Call(plane, "/console/")
    assert (call.status, call.content) == (418, b"behind")
