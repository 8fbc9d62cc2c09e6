"""The router protocol's requests over HTTP, without retries.

Snapshots may come from another place, such as a CDN in front of a bucket. This is only a file server, so it is polled
without a key and without the protocol's parameters.

httpx is imported when the connection opens, in the poller's thread, so that `import pointsman` stays cheap.
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
from pointsman.sync.backoff import LONGEST_TOLD_S
from pointsman.sync.connection import Connection
from pointsman.sync.headers import fits_header
from pointsman.sync.quiet import no_line_per_request, quiet_httpx

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Transport", "Unreachable"]

# In addition to the long poll's wait: time for the headers, and for a large body over a slow connection.
_GRACE_S = 10.0
_BODY_S = 120.0
_POST_S = 10.0
_POST_BYTES = 1024 * 1024  # of a response to outcomes, at most a problem document
# The only coding that is decoded. This is done here because httpx inflates everything it has read before the
# size can be checked: 64 kB, or several stacked codings, can become gigabytes.
_CODINGS = {"Accept-Encoding": "gzip"}
# Options of httpx.AsyncClient with credentials, which must not be sent to the publisher of snapshots.
_NOT_LENT = frozenset({"auth", "cert", "cookies", "event_hooks", "params"})


class Unreachable(Exception):  # noqa: N818 - names a state, not an error
    """There was no response, or it was not HTTP.

    cut     the connection ended after the request was sent, as when a proxy's time limit ends a long poll
    silent  the connection stayed open, and nothing came within our own time limit
    sent    False if there was no request, for want of a key
    """

    def __init__(self, why: str, *, cut: bool = False, silent: bool = False, sent: bool = True) -> None:
        super().__init__(why)
        self.cut, self.silent, self.sent = cut, silent, sent


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of the control plane; missing values are None.

    etag        the control plane's own: epoch, revision, digest
    validator   the value for If-None-Match instead: object stores generate their own ETags
    location    the target of a redirect
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
        """The problem document (RFC 9457); empty if the body is not one."""
        try:
            data = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}

    @property
    def refuses_body(self) -> bool:
        """Whether a control plane has read the body and will never accept it.

        A 400 without a code is the answer of something in between, and `wrong_host` is about the address.
        """
        if self.status == 400:
            return self.problem.get("code") not in (None, "wrong_host")
        return self.status == 422

    @property
    def bad_entries(self) -> set[tuple[str, int]]:
        """The entries of a report that a 422 lists, as (list, index); the list defaults to `buckets`."""
        named = [entry for entries in self.problem.values() if isinstance(entries, list) for entry in entries]
        places = (
            (entry.get("list", "buckets"), entry.get("index", entry.get("bucket")))
            for entry in named
            if isinstance(entry, dict)
        )
        return {(name, n) for name, n in places if isinstance(name, str) and isinstance(n, int)}

    def describe(self) -> str:
        """Return one line for logs and `status()`."""
        problem = self.problem
        said = problem.get("code") or problem.get("title") or ""
        return f"HTTP {self.status} {said}".rstrip()

    def describe_refusal(self) -> str:
        """Return `describe`, and why: the sentence of the control plane, and the first entry that it names."""
        detail = self.problem.get("detail")
        said = [self.describe(), *([detail] if isinstance(detail, str) else [])]
        named = self.problem.get("problems")
        if isinstance(named, list) and named and isinstance(named[0], dict):
            first = named[0]
            place = f"{first.get('list', 'entry')}[{first.get('index', '?')}].{first.get('field', '')}"
            said.append(f"{place.rstrip('.')}: {first.get('message', '')}")
        return ". ".join(one.rstrip(".") for one in said)[:400]


class Transport:
    """The HTTP clients, open while the poller runs: `await transport.open()`, then `async with transport`."""

    def __init__(self, connection: Connection, router: str) -> None:
        self._connection = connection
        self._router = router
        self._client: httpx.AsyncClient
        self._published: httpx.AsyncClient | None
        # The Authorization of the last snapshot. A delta lacks what a former key or process could not read, so the
        # first request of this process, and of each key, is for everything.
        self._known_as: str | None = None

    async def __aenter__(self) -> Transport:
        return self

    async def open(self) -> None:
        """Create the HTTP clients. Raises httpx's errors for an unusable proxy, certificate or option."""
        import httpx

        quiet_httpx()
        options = self._connection.options
        # Following a redirect would send the key to its target.
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
        """Request a newer snapshot, waiting for at most `wait_s`.

        Raises Unreachable, and SnapshotRefused for a body over the limit. For published snapshots `since` and
        `wait_s` are not sent, and `since` is not sent with a key for the first time.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        if self._published is not None:
            return await self._guarded(self._stream(self._published, headers, [], 0), _BODY_S)
        key = headers["Authorization"] = self._authorization()
        if wait_s:
            headers["Prefer"] = f"wait={wait_s}"
        params: list[tuple[str, str | int]] = [("workload", name) for name in self._connection.workloads]
        if since is not None and key == self._known_as:
            params.append(("since", since))
        answer = await self._guarded(self._stream(self._client, headers, params, wait_s), wait_s + _BODY_S)
        if answer.status in (200, 304):
            self._known_as = key
        return answer

    async def post(self, path: str, body: bytes, router: str | None = None) -> Answer:
        """Send JSON to `/router/v1/<path>`. `router` is the name of the author of a body from a shared disk."""
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
            # The status is sufficient; an endless explanation is ignored.
            return _answer(response, await _body(response, _POST_BYTES) or b"")

    async def _guarded(self, request: Any, limit_s: float) -> Answer:
        import httpx

        try:
            # httpx limits each read; a total limit stops a server that sends one byte at a time.
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
            raise Unreachable(
                f"{type(error).__name__}: {error}".rstrip(": "),
                cut=isinstance(error, httpx.ReadError | httpx.RemoteProtocolError),
                silent=isinstance(error, httpx.ReadTimeout),
            ) from error

    def _authorization(self) -> str:
        key = self._connection.key
        try:
            given = key() if callable(key) else key
        except Exception as error:  # the caller's function, for example if its vault cannot be reached
            why = f"the key function failed, {type(error).__name__}: {error}"
            raise Unreachable(why, sent=False) from error
        # A key read from a file ends with a line break; httpx would refuse it and quote the key in its message.
        text = given.strip() if isinstance(given, str) else ""
        if not text:
            raise Unreachable(f"the key function returned no key{_instead(given)}", sent=False)
        if not fits_header(text):
            why = "the key function returned no usable key: it has characters that no key has"
            raise Unreachable(why, sent=False)
        return f"Bearer {text}"


def _instead(given: object) -> str:
    return ", but an empty text" if isinstance(given, str) else f", but {type(given).__name__}"


async def _body(response: httpx.Response, limit: int) -> bytes | None:
    """Return the decoded body; None if it exceeds `limit` bytes.

    Raises Unreachable for a coding that was not requested, and `zlib.error` for damaged data.
    """
    if response.is_stream_consumed:  # a complete body from a transport of the caller's
        return response.content if len(response.content) <= limit else None
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("gzip", "x-gzip", "identity", ""):
        raise Unreachable(f"the response is encoded as {coding[:40]!r}, which was not requested")
    inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS) if "gzip" in coding else None
    body = bytearray()
    async for piece in response.aiter_raw():
        body += inflater.decompress(piece, limit - len(body) + 1) if inflater else piece
        if len(body) > limit:
            return None
    if inflater and body and not inflater.eof:
        raise Unreachable("the response ended in the middle of its body")
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
    """Return the ETag if it can be sent back. Any other would make all later polls fail, even after a restart."""
    return etag if fits_header(etag) else None


def _metadata(headers: httpx.Headers, name: str) -> str | None:
    """Return the metadata stored with an object, as S3 and Google Cloud Storage send it."""
    found: str | None = headers.get(f"x-amz-meta-{name}") or headers.get(f"x-goog-meta-{name}")
    return found


def _retry_after(value: str | None) -> float | None:
    """Return Retry-After in seconds; the header is a number or a date (RFC 9110, 10.2.3). None if it is invalid."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_TOLD_S) if math.isfinite(seconds) else None
