"""The protocol's four requests over HTTP, without retries of their own.

Snapshots may come from another place, a CDN in front of a bucket: no more than a file server, so that it is asked
without a key, and nothing that a file server does not know.

httpx is imported when the connection opens, in the poller's thread: `import pointsman` stays cheap.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pointsman.errors import SnapshotRefused
from pointsman.sync.connection import Connection
from pointsman.sync.headers import fits_header
from pointsman.sync.quiet import no_line_per_request, quiet_httpx

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Transport", "Unreachable"]

# Beyond the long poll's own wait: time for the headers, and for a large body over a slow line.
_GRACE_S = 10.0
_BODY_S = 120.0
_POST_S = 10.0
_LONGEST_RETRY_AFTER_S = 3_600.0
_POST_BYTES = 1024 * 1024  # of an answer to outcomes: a problem document at most
# The one coding that is decoded, here and not by httpx, which inflates whatever it read before anybody can look
# at the size: 64 kB of it, or codings stacked on each other, can be gigabytes.
_CODINGS = {"Accept-Encoding": "gzip"}
# Options of httpx.AsyncClient that say who we are: no business of whoever publishes snapshots.
_NOT_LENT = frozenset({"auth", "cert", "cookies", "event_hooks", "params"})


class Unreachable(Exception):  # noqa: N818 - a fact, told as one
    """No answer came, or none that is HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the control plane said; what it did not say is None.

    etag        the control plane's own: epoch, revision, digest
    validator   what If-None-Match takes instead: object stores make ETags of their own
    location    where a redirect points
    """

    status: int
    body: bytes = b""
    etag: str | None = None
    validator: str | None = None
    signature: str | None = None
    retry_after_s: float | None = None
    location: str | None = None

    @property
    def problem(self) -> Mapping[str, Any]:
        """The problem document (RFC 9457); empty when the body is none."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    @property
    def bad_entries(self) -> set[tuple[str, int]]:
        """The entries of a report that a 422 names, by (list, index); a list that is not named is `buckets`."""
        named = [entry for entries in self.problem.values() if isinstance(entries, list) for entry in entries]
        places = (
            (entry.get("list", "buckets"), entry.get("index", entry.get("bucket")))
            for entry in named
            if isinstance(entry, dict)
        )
        return {(name, n) for name, n in places if isinstance(name, str) and isinstance(n, int)}

    def describe(self) -> str:
        """One line for logs and `status()`."""
        problem = self.problem
        said = problem.get("code") or problem.get("title") or ""
        return f"HTTP {self.status} {said}".rstrip()


class Transport:
    """Open for as long as the poller runs: `await transport.open()`, then `async with transport`."""

    def __init__(self, connection: Connection, router: str) -> None:
        self._connection = connection
        self._router = router
        self._client: httpx.AsyncClient
        self._published: httpx.AsyncClient | None

    async def __aenter__(self) -> Transport:
        return self

    async def open(self) -> None:
        """Make the HTTP clients. Raises what httpx does for a proxy, certificate or option that it cannot use."""
        import httpx

        quiet_httpx()
        options = self._connection.options
        # A redirect would carry the key to wherever it points.
        common: dict[str, Any] = {"follow_redirects": False, "timeout": httpx.Timeout(_POST_S)}
        headers = {"Pointsman-Router": self._router, "Pointsman-Client": self._connection.client, **_CODINGS}
        self._client = httpx.AsyncClient(base_url=self._connection.url, headers=headers, **common, **options)
        self._published = None
        if self._connection.snapshots_url is not None:
            lent = {name: option for name, option in options.items() if name not in _NOT_LENT}
            self._published = httpx.AsyncClient(
                base_url=self._connection.snapshots_url, headers=_CODINGS, **common, **lent
            )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()
        if self._published is not None:
            await self._published.aclose()

    async def snapshot(self, etag: str | None, since: int | None, wait_s: int) -> Answer:
        """Ask for what is newer, at most `wait_s` long. Raises Unreachable, and SnapshotRefused for a body over
        the limit. Where snapshots are published, `since` and `wait_s` mean nothing and are not sent.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        if self._published is not None:
            return await self._guarded(self._stream(self._published, headers, [], 0), _BODY_S)
        headers["Authorization"] = self._authorization()
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        params: list[tuple[str, str | int]] = [("workload", name) for name in self._connection.workloads]
        if since is not None:
            params.append(("since", since))
        return await self._guarded(self._stream(self._client, headers, params, wait_s), wait_s + _BODY_S)

    async def post(self, path: str, body: bytes, router: str | None = None) -> Answer:
        """Send JSON to `/router/v1/<path>`. `router`: whose body it is, if another's from a shared disk."""
        headers = {"Authorization": self._authorization(), "Content-Type": "application/json"}
        if router is not None:
            headers["Pointsman-Router"] = router
        return await self._guarded(self._post(path, body, headers), _POST_S)

    async def _stream(
        self, client: httpx.AsyncClient, headers: Mapping[str, str], params: list[Any], wait_s: int
    ) -> Answer:
        import httpx

        timeout = httpx.Timeout(_POST_S, read=wait_s + _GRACE_S)
        request = client.stream(
            "GET", "/router/v1/snapshot", headers=headers, params=params or None, timeout=timeout
        )
        async with request as response:
            limit = self._connection.max_bytes
            body = await _body(response, limit)
        if body is None:
            raise SnapshotRefused("too_large", f"the snapshot is over the limit of {limit} bytes")
        return _answer(response, body)

    async def _post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        request = self._client.stream("POST", f"/router/v1/{path}", content=body, headers=headers)
        async with request as response:
            # What was done is in the status; an explanation without end is none.
            return _answer(response, await _body(response, _POST_BYTES) or b"")

    async def _guarded(self, request: Any, limit_s: float) -> Answer:
        import httpx

        try:
            # httpx limits each read; a server that drips a byte at a time is stopped by the whole.
            with no_line_per_request():
                async with asyncio.timeout(limit_s):
                    answer: Answer = await request
                    return answer
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            httpx.StreamError,
            OSError,
            RuntimeError,
            zlib.error,
        ) as error:
            raise Unreachable(f"{type(error).__name__}: {error}".rstrip(": ")) from error

    def _authorization(self) -> str:
        key = self._connection.key
        # A key read from a file ends with a line break; httpx would refuse it, and quote it in its message.
        text = (key() if callable(key) else key).strip()
        if not fits_header(text):
            raise Unreachable("the key holds characters that no header can carry")
        return f"Bearer {text}"


async def _body(response: httpx.Response, limit: int) -> bytes | None:
    """The body, decoded; None if it is over `limit` bytes. Raises Unreachable for a coding that was not asked for,
    and `zlib.error` for one that is damaged.
    """
    if response.is_stream_consumed:  # made in one piece, by a transport of the caller's
        return response.content if len(response.content) <= limit else None
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("gzip", "x-gzip", "identity", ""):
        raise Unreachable(f"the answer is encoded as {coding[:40]!r}, which was not asked for")
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if "gzip" in coding else None
    body = bytearray()
    async for piece in response.aiter_raw():
        body += inflater.decompress(piece, limit - len(body) + 1) if inflater else piece
        if len(body) > limit:
            return None
    if inflater and body and not inflater.eof:
        raise Unreachable("the answer ended in the middle of its body")
    return bytes(body)


def _answer(response: httpx.Response, body: bytes) -> Answer:
    headers = response.headers
    own, named = _plain(headers.get("ETag")), _plain(_metadata(headers, "pointsman-etag"))
    return Answer(
        status=response.status_code,
        body=body,
        etag=named or own,
        validator=own if named else None,
        signature=headers.get("Pointsman-Signature") or _metadata(headers, "pointsman-signature"),
        retry_after_s=_retry_after(headers.get("Retry-After")),
        location=headers.get("Location"),
    )


def _plain(etag: str | None) -> str | None:
    """The ETag, if it can be sent back. Kept, another one would make every later poll fail, from disk as well."""
    return etag if fits_header(etag) else None


def _metadata(headers: httpx.Headers, name: str) -> str | None:
    """What was stored beside an object, as S3 and Google's store give it back."""
    found: str | None = headers.get(f"x-amz-meta-{name}") or headers.get(f"x-goog-meta-{name}")
    return found


def _retry_after(value: str | None) -> float | None:
    """Seconds from now; the header holds those or a date (RFC 9110, 10.2.3). None when it cannot be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER_S) if math.isfinite(seconds) else None
