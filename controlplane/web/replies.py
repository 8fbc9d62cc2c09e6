"""What a data plane handler is given and gives back. No framework: an answer costs no more than its bytes."""

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

import msgspec

from controlplane.access.keyring import Caller
from controlplane.core.errors import MalformedBody, PointsmanError

Header = tuple[bytes, bytes]

# What may name a router or its software: printable ASCII, at most 128 characters.
_NAME = re.compile(rb"[\x20-\x7e]{1,128}")


class Line(Protocol):
    """The connection of one request, as the door has it that took the request in."""

    @property
    def gone(self) -> bool:
        """Whoever asked has hung up."""

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Call it once they hang up; None: no longer. One at a time."""

    async def piece(self) -> bytes:
        """The next piece of the body, never empty but at its end. Raises `ConnectionResetError`."""

    async def begin(self, status: int, headers: list[Header]) -> None:
        """Begin an answer that comes in pieces; without a content-length the door frames them."""

    async def write(self, piece: bytes) -> None:
        """Send a piece; returns when there is room for another. Raises `ConnectionResetError`."""

    def address(self) -> tuple[str, tuple[str, int], str]:
        """The client's host, the server's host and port, the scheme."""


class Request:
    """One request; the same object again when a connection repeats itself byte by byte, as routers do.

    Header names are in lower case, a repeated header's values are joined by commas (RFC 9110 5.3).
    """

    __slots__ = ("_client", "_instance", "headers", "known", "line", "method", "path", "query", "verified")

    def __init__(self, method: str, path: str, query: bytes, headers: dict[bytes, bytes], line: Line) -> None:
        self.method = method
        self.path = path  # percent-decoded
        self.query = query
        self.headers = headers
        self.line = line
        self.verified: Caller | None = None  # the key that it carries, as it was last time
        self.known: Any = None  # what a handler keeps of the answer for when it is asked again
        self._instance: str | None = None
        self._client: str | None = None

    @property
    def caller(self) -> Caller:
        """The key that was checked, which it is before a handler sees the request."""
        return cast(Caller, self.verified)

    def instance(self) -> str:
        """The router process. One that does not say who it is counts under its key."""
        if self._instance is None:
            self._instance = self._named(b"pointsman-router")
        return self._instance or f"key {self.caller.key_id}"

    def client(self) -> str:
        if self._client is None:
            self._client = self._named(b"pointsman-client")
        return self._client

    def _named(self, header: bytes) -> str:
        value = self.headers.get(header, b"")
        return value.decode("ascii") if _NAME.fullmatch(value) else ""


def parameters(query: bytes) -> list[tuple[str, str]]:
    """Raises `MalformedBody`."""
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=10_000, errors="strict"
        )
    except ValueError as error:
        raise MalformedBody(f"The query cannot be read: {error}.") from None


def joined(name: bytes, first: bytes, second: bytes) -> bytes:
    """The value of a header that came twice."""
    return first + (b"; " if name == b"cookie" else b", ") + second


class Reply:
    """A whole answer. Made once, it may be sent any number of times, so nothing in it changes.

    `head` is made of it when it is first sent over HTTP/1.1: status line and headers, without the empty line.
    """

    __slots__ = ("_head", "body", "headers", "status")

    def __init__(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._head: bytes | None = None

    @property
    def head(self) -> bytes:
        if self._head is None:
            headers = self.headers
            if not is_sized(self.status, headers):
                headers = [*headers, (b"content-length", b"%d" % len(self.body))]
            self._head = head(self.status, headers)
        return self._head

    def with_headers(self, *headers: Header) -> "Reply":
        """The same answer with more headers. The original, perhaps shared, stays as it was."""
        return Reply(self.status, [*self.headers, *headers], self.body)


def is_sized(status: int, headers: list[Header]) -> bool:
    """Whether the end of the answer is known without its body: it says so, or it has none."""
    return status in (204, 304) or any(name == b"content-length" for name, _ in headers)


def head(status: int, headers: list[Header]) -> bytes:
    """An answer's first lines in HTTP/1.1."""
    try:
        phrase = HTTPStatus(status).phrase.encode()
    except ValueError:
        phrase = b""
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, phrase)]
    lines += [b"%s: %s\r\n" % header for header in headers]
    return b"".join(lines)


def json_reply(
    status: int, document: Any, *headers: Header, content_type: bytes = b"application/json"
) -> Reply:
    body = msgspec.json.encode(document)
    return Reply(
        status,
        [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers],
        body,
    )


def problem(error: PointsmanError) -> Reply:
    """RFC 9457 problem details. A refusal that passes says when to come back."""
    headers = [(b"cache-control", b"no-store")]
    if (seconds := getattr(error, "retry_after", None)) is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="pointsman"'))
    return json_reply(error.status, error.as_problem(), *headers, content_type=b"application/problem+json")
