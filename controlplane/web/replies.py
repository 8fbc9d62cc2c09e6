"""Requests and responses of the data plane, without a framework, to keep the cost per response minimal.

Requests and responses are ASGI messages (asgi.readthedocs.io, HTTP 2.3), so any ASGI server can carry them.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import IO, Any
from urllib.parse import parse_qsl

import msgspec

from controlplane.access.keyring import Caller
from controlplane.core.errors import MalformedBody, PointsmanError

Header = tuple[bytes, bytes]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# A valid name of a router or its software: printable ASCII, at most 128 characters.
_NAME = re.compile(rb"[\x20-\x7e]{1,128}")


class Request:
    """One request. Header names are lower-case; the values of a repeated header are joined by commas (RFC 9110 5.3).

    `caller` is the key it carries; the gateway sets it before calling a handler.
    """

    __slots__ = (
        "_client", "_ended", "_instance", "_receive", "caller", "headers", "method", "path", "query", "scope",
    )  # fmt: skip
    caller: Caller

    def __init__(self, scope: Message, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]  # percent-decoded
        self.query: bytes = scope["query_string"]
        headers = scope["headers"]
        found = dict(headers)
        self.headers: dict[bytes, bytes] = found if len(found) == len(headers) else _joined(headers)
        self._receive = receive
        self._ended = False
        self._instance: str | None = None
        self._client: str | None = None

    def instance(self) -> str:
        """Return the name of the router process, or one made from its key if it sends none."""
        if self._instance is None:
            self._instance = self._named(b"pointsman-router")
        return self._instance or f"key {self.caller.key_id}"

    def client(self) -> str:
        if self._client is None:
            self._client = self._named(b"pointsman-client")
        return self._client

    async def piece(self) -> tuple[bytes, bool]:
        """Return the next piece of the body, and whether more follow. Raises `ConnectionResetError`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise ConnectionResetError
        more = message.get("more_body", False)
        self._ended = not more
        return message.get("body", b""), more

    @property
    def is_unread(self) -> bool:
        """Whether it has a body of which nobody has read the end."""
        if self._ended:
            return False
        return (
            self.headers.get(b"content-length", b"").strip(b"0") != b""
            or b"transfer-encoding" in self.headers
        )

    async def hung_up(self) -> None:
        """Return when the client has hung up. Only for use when the body is no longer being read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _named(self, header: bytes) -> str:
        value = self.headers.get(header)
        return value.decode("ascii") if value and _NAME.fullmatch(value) else ""


def _joined(headers: Iterable[Header]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in found:
            value = found[name] + (b"; " if name == b"cookie" else b", ") + value
        found[name] = value
    return found


def parameters(query: bytes) -> list[tuple[str, str]]:
    """Parse a query string. Raises `MalformedBody`."""
    try:
        return parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=10_000, errors="strict"
        )
    except ValueError as error:
        raise MalformedBody(f"The query cannot be read: {error}.") from None


class Reply:
    """A whole response. It is immutable, so that it can be built once and sent many times.

    `start` and `content` are its ASGI messages. `file` holds a body that is too large for memory; such a reply is sent
    once, which closes the file.
    """

    __slots__ = ("body", "content", "file", "headers", "start", "status")

    def __init__(
        self, status: int, headers: list[Header], body: bytes = b"", file: IO[bytes] | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.file = file
        self.start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        self.content: Message = {"type": "http.response.body", "body": body}

    def with_headers(self, *headers: Header) -> "Reply":
        """Return a copy with more headers. The original may be shared and stays unchanged."""
        return Reply(self.status, [*self.headers, *headers], self.body, self.file)


def json_reply(
    status: int, document: Any, *headers: Header, content_type: bytes = b"application/json"
) -> Reply:
    try:
        body = msgspec.json.encode(document)
    except UnicodeEncodeError:  # a lone surrogate in an echoed URL; escaped, it is valid JSON
        body = json.dumps(document).encode()
    return Reply(
        status,
        [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *headers],
        body,
    )


def problem(error: PointsmanError) -> Reply:
    """Build the RFC 9457 problem response of an error. A temporary error carries `Retry-After`."""
    headers = [(b"cache-control", b"no-store")]
    if (seconds := getattr(error, "retry_after", None)) is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="pointsman"'))
    return json_reply(error.status, error.as_problem(), *headers, content_type=b"application/problem+json")
