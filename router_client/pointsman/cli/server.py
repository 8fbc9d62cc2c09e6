"""Client of the control plane's admin API. Refusals become error messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import httpx

from pointsman.cli.output import CliError
from pointsman.version import VERSION
from pointsman.visible import one_line

__all__ = ["Refused", "Server"]

TIMEOUT_S = 30.0
# Actions for emergencies: nobody should have to read first, and a change made meanwhile should not stop them.
URGENT = frozenset({"pause", "roll-back", "abort", "revert", "pin", "unpin"})


class Refused(CliError):
    """A refusal by the control plane, with its stable code."""

    def __init__(self, status: int, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.code = status, code

    @property
    def final(self) -> bool:
        """Whether nothing was changed and a repetition would be refused, too. A server's error is not."""
        return 300 <= self.status < 500


class Server:
    """One control plane. Paths are relative to /api/v1; `path` quotes the names in them."""

    def __init__(self, address: str, key: str) -> None:
        # A text that was read from a file often ends with a line break.
        address, key = address.strip(), key.strip()
        if not (key.isascii() and key.isprintable()):
            raise CliError("The key contains characters that cannot be sent; copy it again.")
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise CliError(
                f"{address!r} is not a valid address of a control plane; use one like https://pointsman.example."
            )
        try:
            self._client = httpx.Client(
                base_url=f"{address.rstrip('/')}/api/v1/",
                headers={"Authorization": f"Bearer {key}", "User-Agent": f"pointsman-cli/{VERSION}"},
                timeout=TIMEOUT_S,
            )
        except (ValueError, httpx.InvalidURL, ImportError) as error:
            raise CliError(f"The address or a proxy setting cannot be used: {error}.") from None

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def get(self, path: str, **query: Any) -> Any:
        """Return the document. Raises `Refused`."""
        return self._read(path, query)[0]

    def text(self, path: str) -> str:
        """Return a report in Markdown."""
        answer = self._answered("GET", path)
        if "markdown" not in answer.headers.get("Content-Type", ""):
            raise _foreign(answer)
        return answer.text

    def find(self, path: str) -> Any:
        """Return the document, or None if it does not exist."""
        try:
            return self.get(path)
        except Refused as refused:
            if refused.code == "not_found":  # not the 404 of something else that answers at this address
                return None
            raise

    def every(self, path: str, **query: Any) -> Iterator[Any]:
        """Yield all items of a list, page by page."""
        given: Mapping[str, Any] = {**query, "limit": 200}
        while True:
            page, answer = self._read(path, given)
            if not isinstance(page.get("items"), list):
                raise _foreign(answer)
            yield from page["items"]
            if not page.get("next"):
                return
            # Only its query: the host in it is the one that the server believes to have, and would receive the key.
            given = dict(parse_qsl(urlsplit(page["next"]).query))

    def _read(self, path: str, query: Mapping[str, Any]) -> tuple[dict[str, Any], httpx.Response]:
        given = {name: value for name, value in query.items() if value is not None}
        page, answer = self._ask("GET", path, params=given)
        return _object(page, answer), answer

    def check(self) -> None:
        """Raise `CliError` unless a control plane answers: where there is none, every name would seem to be missing."""
        try:
            self.get("environments", limit=1)
        except Refused as refused:
            if refused.status != 404:
                raise
            address = self._client.base_url.copy_with(username=None, password=None)
            raise CliError(f"There is no control plane at {address}: {refused}") from None

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Post with an `Idempotency-Key`, so that it takes effect once however often the connection breaks."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return _object(*self._ask("POST", path, json=dict(body), headers=headers))

    def compute(self, path: str, body: Mapping[str, Any], seconds: float) -> Any:
        """Post a computation that changes nothing, with a longer time limit."""
        return _object(*self._ask("POST", path, json=dict(body), timeout=seconds))

    def act(self, thing: str, action: str, body: Mapping[str, Any]) -> Any:
        """Post an action once, conditional on the object just read unless it is urgent."""
        if action in URGENT:
            return self.post(f"{thing}/{action}", body)
        etag = self._ask("GET", thing)[1].headers.get("ETag", "*")
        headers = {"Idempotency-Key": str(uuid.uuid4()), "If-Match": etag}
        return _object(*self._ask("POST", f"{thing}/{action}", json=dict(body), headers=headers))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Patch the object just read, without overwriting changes made since."""
        etag = self._ask("GET", path)[1].headers.get("ETag", "*")
        return _object(*self._ask("PATCH", path, json=dict(body), headers={"If-Match": etag}))

    def put(self, path: str, body: Mapping[str, Any], version: int | None = None) -> Any:
        """Put the object. `version` is the one that was read, None if there was none."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        return _object(*self._ask("PUT", path, json=dict(body), headers=headers))

    def delete(self, path: str, **query: Any) -> None:
        """Delete the object."""
        self._ask("DELETE", path, params={name: value for name, value in query.items() if value is not None})

    def _ask(self, method: str, path: str, **how: Any) -> tuple[Any, httpx.Response]:
        answer = self._answered(method, path, **how)
        if not answer.content:
            return None, answer
        try:
            if "json" in answer.headers.get("Content-Type", ""):
                return answer.json(), answer
        except ValueError:
            pass
        raise _foreign(answer)

    def _answered(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._client.request(method, path, **how)
        except httpx.TimeoutException:
            seconds = how.get("timeout", TIMEOUT_S)
            raise CliError(f"The control plane did not answer within {seconds:g} s.") from None
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            raise CliError(f"The control plane cannot be reached: {error}.") from None
        if answer.is_success:
            return answer
        raise _refusal(answer)


def path(*parts: str | int) -> str:
    """Return a path below /api/v1 from names with arbitrary characters."""
    return "/".join(quote(str(part), safe="") for part in parts)


def _object(document: Any, answer: httpx.Response) -> dict[str, Any]:
    """Return the document. Every answer of the API with a document is an object that is not empty."""
    if not isinstance(document, dict) or not document:
        raise _foreign(answer)
    return document


def _foreign(answer: httpx.Response) -> Refused:
    """Return the error for an answer in another form, such as the page of a proxy that wants a login first."""
    kind = answer.headers.get("Content-Type", "no content type")
    address = answer.request.url.copy_with(query=None, username=None, password=None)
    sentence = (
        f"Something other than a control plane answered {address}: {answer.status_code}, {one_line(kind)}."
    )
    return Refused(answer.status_code, "no_problem", sentence)


def _refusal(answer: httpx.Response) -> Refused:
    if answer.has_redirect_location:
        place = answer.request.url.join(answer.headers["Location"])
        sentence = (
            f"The control plane answered {answer.status_code}: it is at {one_line(place)}; use that address."
        )
        return Refused(answer.status_code, "no_problem", sentence)
    try:
        problem = answer.json()
        code, detail = str(problem["code"]), str(problem.get("detail") or problem.get("title"))
        problems = problem.get("problems") or []
    except (ValueError, KeyError, TypeError, AttributeError):
        return _foreign(answer)
    named = [_problem(one) for one in problems if isinstance(one, Mapping)]
    return Refused(answer.status_code, code, "\n  ".join(map(one_line, [f"{detail} ({code})", *named])))


def _problem(one: Mapping[str, Any]) -> str:
    where = one.get("path") or one.get("field") or ""
    text = one.get("message") or one.get("detail") or one.get("code") or ""
    return f"{where}: {text}" if where else str(text)
