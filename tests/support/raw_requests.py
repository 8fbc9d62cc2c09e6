"""Malformed requests to the router endpoints, passed directly to the ASGI application without a socket.

Each starts as a request that a router may send. Then something is changed: bytes of the body, a number or a text in it,
the query, a header, the method, how the body arrives in pieces, or the client disconnects early.
"""

import asyncio
import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LIMIT_S = 20.0  # for a request; none of these waits for anything
TEXTS = [
    b"", b"\x00", b"\\u0000", b"\\ud800", b"\xff", b"\xed\xa0\x80", b"x" * 5_000, b"\\", b'"', b"\xef\xbb\xbf",
    "\u202e".encode(),
]  # fmt: skip
NUMBERS = [
    b"-1", b"-0.0", b"1e999", b"-1e-999", b"1E5", b"0x10", b"01", b"9" * 19, b"9" * 400, b"1.5", b"NaN", b"Infinity",
    b"null", b"true", b"[]", b"{}", b'""', b"18446744073709551616", b"9223372036854775807",
]  # fmt: skip
HEADERS = [
    (b"if-none-match", b'"' * 3_000), (b"if-none-match", b"*, W/\xff"), (b"accept-encoding", b"zstd;q=x, gzip;q=-1"),
    (b"prefer", b"wait=0"), (b"prefer", b"wait=-1"), (b"prefer", b"wait=" + b"9" * 400), (b"prefer", b"\xff=;=,"),
    (b"content-encoding", b"gzip"), (b"content-type", b"text/plain; charset=utf-16"), (b"content-length", b"-1"),
    (b"content-length", b"9" * 30), (b"content-length", b"\xb2"), (b"transfer-encoding", b"gzip"),
    (b"pointsman-router", b"\x7f" * 200), (b"pointsman-client", b"\xff"), (b"authorization", b"Bearer \xff\x00"),
    (b"authorization", b"Bearer"), (b"host", b""), (b"host", b"\xff"), (b"host", b"[::1"),
    (b"x-forwarded-for", b"\xff, ::, 999"), (b"cookie", b"\x00"),
]  # fmt: skip
QUERIES = [
    b"since=%ff", b"since=-1", b"since=" + b"9" * 400, b"workload=%00", b"&" * 9_000, b"%", b"=", b"\xff",
    b"workload=&since=",
]  # fmt: skip
FLAGS = "/ofrep/v1/evaluate/flags/"
PATHS = ["/router/v1/", "/router/v1/\x00", "/router/v1/snapshot/", f"{FLAGS}\ud800", FLAGS + "x" * 999]
PUNCTUATION = b'{}[],:"\\ 0'


@dataclass
class Raw:
    """One request in ASGI's form. `cut`: the client disconnects before the last piece."""

    method: str
    path: str
    body: bytes
    query: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    pieces: int = 1
    cut: bool = False

    def scope(self) -> dict[str, Any]:
        return {
            "type": "http", "http_version": "1.1", "method": self.method, "path": self.path, "query_string": self.query,
            "headers": self.headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "scheme": "http",
        }  # fmt: skip

    def messages(self) -> list[dict[str, Any]]:
        """The messages that the server would pass on."""
        size = max(-(-len(self.body) // self.pieces), 1)
        parts = [self.body[at : at + size] for at in range(0, len(self.body), size)] or [b""]
        last = len(parts) - 1
        sent = [{"type": "http.request", "body": part, "more_body": n < last} for n, part in enumerate(parts)]
        return [*(sent[:-1] if self.cut else sent), {"type": "http.disconnect"}]


@dataclass
class Told:
    """The complete response."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the problem, or OFREP's error code."""
        told = json.loads(self.body)
        return str(told.get("code") or told["errorCode"])


async def ask(application: Any, raw: Raw) -> Told:
    """Raises `AssertionError` if there is not exactly one complete response, `TimeoutError` if there is none."""
    incoming, sent = iter(raw.messages()), []

    async def receive() -> dict[str, Any]:
        if (message := next(incoming, None)) is None:
            await asyncio.sleep(3_600)  # after its end nothing arrives any more
        return message or {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async with asyncio.timeout(LIMIT_S):
        await application(raw.scope(), receive, send)
    start, *rest = sent
    assert start["type"] == "http.response.start"
    assert rest and [m.get("more_body", False) for m in rest] == [True] * (len(rest) - 1) + [False]
    body = b"".join(m["body"] for m in rest)
    headers = dict(start["headers"])
    if raw.method != "HEAD" and b"content-length" in headers and start["status"] != 304:
        assert int(headers[b"content-length"]) == len(body)
    return Told(start["status"], headers, body)


class Mutator:
    """`endpoints`: by URL with its query, the method, and a function that returns another valid document each time."""

    def __init__(
        self, rng: random.Random, key: str, endpoints: Mapping[str, tuple[str, Callable[[], Any]]]
    ) -> None:
        self._rng, self._endpoints = rng, endpoints
        self._headers = [
            (b"host", b"localhost"), (b"authorization", f"Bearer {key}".encode()), (b"pointsman-router", b"r-1"),
        ]  # fmt: skip

    def draw(self) -> Raw:
        asked = self._rng.choice(list(self._endpoints))
        method, document = self._endpoints[asked]
        path, _, query = asked.partition("?")
        body = b"" if method == "GET" else json.dumps(document()).encode()
        raw = Raw(
            method,
            path,
            body,
            query.encode(),
            headers=list(self._headers),
            pieces=self._rng.choice([1, 1, 2, 7]),
        )
        changes = [self._bytes, self._bytes, self._value, self._value, self._value, self._around, self._twice]
        for _ in range(self._rng.choice([0, 1, 1, 1, 2])):
            self._rng.choice(changes)(raw)
        return raw

    def _bytes(self, raw: Raw) -> None:
        rng, body = self._rng, raw.body
        at, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
        odd = rng.choice([rng.randbytes(rng.randrange(1, 9)), rng.choice(TEXTS), rng.choice(NUMBERS)])
        noise = bytes(rng.choices(PUNCTUATION, k=rng.randrange(1, 60)))
        raw.body = rng.choice([
            body[:at] + odd + body[at:], body[:at] + body[end:], body[:at], body[:end] + body[at:],
            body + odd, odd + body, body[:at] + noise + body[at:], odd * rng.randrange(2_000),
        ])  # fmt: skip

    def _value(self, raw: Raw) -> None:
        """Replace one number or text; usually the document stays valid JSON."""
        rng = self._rng
        numbers = rng.random() < 0.6
        found = list(re.finditer(rb"(?<=: )-?[0-9.e+]+" if numbers else rb'"[^"]*"', raw.body))
        if not found:
            return
        at = rng.choice(found)
        odd = (
            rng.choice([*NUMBERS, b"%d" % rng.randrange(300)]) if numbers else b'"' + rng.choice(TEXTS) + b'"'
        )
        raw.body = raw.body[: at.start()] + odd + raw.body[at.end() :]

    def _twice(self, raw: Raw) -> None:
        """Duplicate one member with its value."""
        found = list(re.finditer(rb'"[^"]*": [^,{}\[\]]+', raw.body))
        if found:
            at = self._rng.choice(found)
            raw.body = raw.body[: at.start()] + at[0] + b", " + raw.body[at.start() :]

    def _around(self, raw: Raw) -> None:
        rng = self._rng
        match rng.randrange(6):
            case 0:
                raw.headers.append(rng.choice(HEADERS))
            case 1:
                name, value = rng.choice(HEADERS)
                raw.headers = [*((n, v) for n, v in raw.headers if n != name), (name, value)]
            case 2:
                raw.query = rng.choice(QUERIES)
            case 3:
                raw.path = rng.choice(PATHS)
            case 4:
                raw.method = rng.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "\xff"])
            case _:
                raw.cut = True
