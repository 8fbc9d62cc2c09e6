"""The protocol's four requests over HTTP, one connection pool, no retries of their own.

httpx is imported when the connection opens, in the poller's thread: `import pointsman` stays cheap.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pointsman.errors import SnapshotRefused

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Connection", "Transport", "Unreachable"]

# Beyond the long poll's own wait: time for the headers, and for a large body over a slow line.
_GRACE_S = 10.0
_BODY_S = 120.0
_POST_S = 10.0
_LONGEST_RETRY_AFTER_S = 3_600.0


class Unreachable(Exception):  # noqa: N818 - a fact, told as one
    """No answer came, or none that is HTTP."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the control plane is and who asks.

    key        the router key, or a function that gives the present one (keys are rotated while routers run)
    workloads  poll only these; empty for all that the key may see
    wait_s     long poll; 0 turns it off
    max_bytes  a snapshot body beyond this is refused while it streams in
    options    for httpx.AsyncClient: `verify`, `cert`, `proxy`, `transport`, …
    """

    url: str
    key: str | Callable[[], str]
    client: str
    workloads: tuple[str, ...] = ()
    wait_s: int = 25
    max_bytes: int = 64 << 20
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the control plane said. `retry_after_s` and `code` (of a problem document) when it gave them."""

    status: int
    body: bytes = b""
    etag: str | None = None
    signature: str | None = None
    retry_after_s: float | None = None

    @property
    def problem(self) -> Mapping[str, Any]:
        """The problem document (RFC 9457); empty when the body is none."""
        try:
            data = json.loads(self.body)
        except ValueError:
            return {}
        return data if isinstance(data, dict) else {}

    @property
    def bad_buckets(self) -> set[int]:
        """Positions of the buckets that a 422 names."""
        named = [entry for entries in self.problem.values() if isinstance(entries, list) for entry in entries]
        positions = (entry.get("index", entry.get("bucket")) for entry in named if isinstance(entry, dict))
        return {position for position in positions if isinstance(position, int)}

    def describe(self) -> str:
        """One line for logs and `status()`."""
        problem = self.problem
        said = problem.get("code") or problem.get("title") or ""
        return f"HTTP {self.status} {said}".rstrip()


class Transport:
    """Open for as long as the poller runs: `async with Transport(connection, router) as transport`."""

    def __init__(self, connection: Connection, router: str) -> None:
        self._connection = connection
        self._router = router
        self._client: httpx.AsyncClient

    async def __aenter__(self) -> Transport:
        import httpx

        self._client = httpx.AsyncClient(
            base_url=self._connection.url,
            # A redirect would carry the key to wherever it points.
            follow_redirects=False,
            headers={"Pointsman-Router": self._router, "Pointsman-Client": self._connection.client},
            timeout=httpx.Timeout(_POST_S),
            **self._connection.options,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def snapshot(self, etag: str | None, since: int | None, wait_s: int) -> Answer:
        """Ask for what is newer, at most `wait_s` long. Raises Unreachable, and SnapshotRefused for a body over
        the limit.
        """
        headers = {"Authorization": self._authorization()}
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        if etag is not None:
            headers["If-None-Match"] = etag
        params: list[tuple[str, str | int | float | bool | None]] = []
        params += [("workload", name) for name in self._connection.workloads]
        if since is not None:
            params.append(("since", since))
        return await self._guarded(self._stream(headers, params, wait_s), wait_s + _BODY_S)

    async def post(self, path: str, body: bytes, router: str | None = None) -> Answer:
        """Send JSON to `/router/v1/<path>`. `router`: whose body it is, if another's from a shared disk."""
        headers = {"Authorization": self._authorization(), "Content-Type": "application/json"}
        if router is not None:
            headers["Pointsman-Router"] = router
        return await self._guarded(self._post(path, body, headers), _POST_S)

    async def _stream(self, headers: Mapping[str, str], params: list[Any], wait_s: int) -> Answer:
        import httpx

        timeout = httpx.Timeout(_POST_S, read=wait_s + _GRACE_S)
        request = self._client.stream(
            "GET", "/router/v1/snapshot", headers=headers, params=params, timeout=timeout
        )
        async with request as response:
            return _answer(response, await self._limited(response))

    async def _limited(self, response: httpx.Response) -> bytes:
        limit = self._connection.max_bytes
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > limit:
                raise SnapshotRefused("too_large", f"the snapshot is over the limit of {limit} bytes")
        return bytes(body)

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        response = await self._client.post(f"/router/v1/{path}", content=body, headers=headers)
        return _answer(response, response.content)

    async def _guarded(self, request: Any, limit_s: float) -> Answer:
        import httpx

        try:
            # httpx limits each read; a server that drips a byte at a time is stopped by the whole.
            async with asyncio.timeout(limit_s):
                answer: Answer = await request
                return answer
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, RuntimeError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def _authorization(self) -> str:
        key = self._connection.key
        return f"Bearer {key() if callable(key) else key}"


def _answer(response: httpx.Response, body: bytes) -> Answer:
    return Answer(
        status=response.status_code,
        body=body,
        etag=response.headers.get("ETag"),
        signature=response.headers.get("Pointsman-Signature"),
        retry_after_s=_retry_after(response.headers.get("Retry-After")),
    )


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; the header holds those or a date (RFC 9110, 10.2.3). None when it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else None
