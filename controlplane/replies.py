"""What a data plane handler is given and gives back. No framework: an answer costs no more than its bytes."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from controlplane.access.keyring import Caller
from controlplane.errors import MalformedBody, PointsmanError

Header = tuple[bytes, bytes]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What may name a router or its software: printable ASCII, at most 128 characters.
_NAME = re.compile(rb"[\x20-\x7e]{1,128}")


@dataclass(slots=True)
class Request:
    """One request of a router, its key already checked. A repeated header counts once: its last value."""

    caller: Caller
    headers: Mapping[bytes, bytes]
    query: bytes
    receive: Receive

    def parameters(self) -> list[tuple[str, str]]:
        try:
            return parse_qsl(
                self.query.decode("ascii"), keep_blank_values=True, max_num_fields=10_000, errors="strict"
            )
        except ValueError as error:
            raise MalformedBody(f"The query cannot be read: {error}.") from None

    def instance(self) -> str:
        """The router process. One that does not say who it is counts under its key."""
        return self._named(b"pointsman-router") or f"key {self.caller.key_id}"

    def client(self) -> str:
        return self._named(b"pointsman-client")

    def _named(self, header: bytes) -> str:
        value = self.headers.get(header, b"")
        return value.decode("ascii") if _NAME.fullmatch(value) else ""


class Reply:
    """A whole answer, as the ASGI messages that carry it. Made once, it may be sent any number of times."""

    __slots__ = ("body", "end", "start")

    def __init__(self, status: int, headers: list[Header], body: bytes = b"") -> None:
        self.body = body
        self.start: Message = {"type": "http.response.start", "status": status, "headers": headers}
        self.end: Message = {"type": "http.response.body", "body": body}

    @property
    def status(self) -> int:
        return int(self.start["status"])

    def with_headers(self, *headers: Header) -> "Reply":
        """The same answer with more headers. The original, perhaps shared, stays as it was."""
        return Reply(self.status, [*self.start["headers"], *headers], self.body)


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
