"""Render errors: RFC 9457 problem details for machines, a page for people.

Used by DRF (`exception_handler`), and by Django for requests that never reach a view (`handler404` … in `urls`).
"""

import logging
import sqlite3
import sys
from typing import Any

from django.core.exceptions import DisallowedHost, PermissionDenied, RequestDataTooBig
from django.db import DataError, InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string
from psycopg.errors import (
    DeadlockDetected,
    LockNotAvailable,
    QueryCanceled,
    ReadOnlySqlTransaction,
    SerializationFailure,
)
from rest_framework import exceptions
from rest_framework.response import Response

from controlplane.core import context
from controlplane.core.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidInput,
    MalformedBody,
    NotFound,
    PointsmanError,
    TooMany,
    Unauthenticated,
    Unavailable,
    WrongHost,
)

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"
MACHINES = ("/api/", "/router/")

# Errors that DRF raises before a view runs, with the code and title used for each.
_FRAMEWORK_REFUSALS = {
    405: ("method_not_allowed", "The method is not allowed here"),
    406: ("not_acceptable", "The requested format is not available"),
    415: ("unsupported_media_type", "The body's media type is not supported"),
}


def exception_handler(error: Exception, context_: dict[str, Any]) -> Response | None:
    """DRF's exception hook. None passes the error on to `server_error`: it is our bug, not the caller's."""
    problem, headers = as_problem(error)
    if problem is None:
        return None
    return Response(problem, status=problem["status"], headers=headers, content_type=CONTENT_TYPE)


def as_problem(error: Exception) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """Return an error's problem document and headers; (None, {}) for an internal failure."""
    known = _as_pointsman_error(error)
    headers = {}
    if known is not None:
        if known.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="pointsman"'
        if (seconds := getattr(known, "retry_after", None)) is not None:
            headers["Retry-After"] = str(seconds)
        return known.as_problem(), headers
    if isinstance(error, exceptions.APIException) and error.status_code in _FRAMEWORK_REFUSALS:
        code, title = _FRAMEWORK_REFUSALS[error.status_code]
        return _problem_document(error.status_code, code, title, str(error.detail)), headers
    return None, headers


def _as_pointsman_error(error: Exception) -> PointsmanError | None:
    match error:
        case PointsmanError():
            return error
        case exceptions.ValidationError():
            return InvalidInput("Some fields of the input are not valid.", flatten(error.detail))
        case exceptions.ParseError():
            return MalformedBody(str(error.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return Unauthenticated(str(error.detail))
        case exceptions.PermissionDenied() | PermissionDenied():
            return Forbidden(str(error) or "You may not do this.")
        case exceptions.NotFound() | Http404():
            return NotFound("There is nothing here, or you may not see it.")
        case exceptions.Throttled():
            return TooMany(str(error.detail), retry_after=int(getattr(error, "wait", None) or 1))
        case RequestDataTooBig():
            return BodyTooLarge("The body is too large; the limit is 256 kB.")
        case DataError():
            return InvalidInput("A value is out of the range that can be stored.")
        case OperationalError() if _gave_way(error):
            logger.warning("the database refused a change in favour of another one (%s)", _first_line(error))
            return Unavailable(
                "Another change at the same moment was in the way, so nothing was changed; try again."
            )
        case OperationalError() if isinstance(error.__cause__, QueryCanceled):
            logger.error("the database took too long (%s)", _first_line(error))
            return Unavailable("The database took too long, so nothing was changed; try again.")
        case OperationalError() | InterfaceError():
            logger.error("the database could not be queried (%s)", _first_line(error))
            return Unavailable("The database cannot be reached at the moment; try again.")
        case InternalError() if isinstance(error.__cause__, ReadOnlySqlTransaction):
            logger.error("the database does not accept writes (%s)", _first_line(error))
            return Unavailable(
                "The database is read-only at the moment, so nothing can be changed; try again."
            )
    return None


def _gave_way(error: Exception) -> bool:
    """Return whether the database chose another transaction over this one: a deadlock, or too long a wait for a lock.

    SQLite has one lock, so there it is always the wait.
    """
    cause = error.__cause__
    return isinstance(cause, DeadlockDetected | LockNotAvailable | SerializationFailure) or (
        isinstance(cause, sqlite3.OperationalError) and "locked" in str(cause)
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def flatten(detail: Any, path: str = "") -> list[dict[str, str]]:
    """Flatten DRF's nested messages into a list: `{"path": "stages/0/share_pcm", "message": …}`."""
    if isinstance(detail, dict):
        items = [(key, "" if key == "non_field_errors" else str(key)) for key in detail]
        return [p for key, name in items for p in flatten(detail[key], f"{path}/{name}".strip("/"))]
    if isinstance(detail, list):
        if all(isinstance(item, str) for item in detail):
            return [{"path": path, "message": _plain(item)} for item in detail]
        return [p for index, item in enumerate(detail) if item for p in flatten(item, f"{path}/{index}")]
    return [{"path": path, "message": _plain(detail)}]


def _plain(message: Any) -> str:
    """Return DRF's message without a database's type name: it says "A valid biginteger is required"."""
    return (
        str(message)
        .replace("valid biginteger", "valid whole number")
        .replace("valid integer", "valid whole number")
    )


# --- Django's handlers -------------------------------------------------------------------------------


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    wrong_host = isinstance(exception, DisallowedHost)
    error = WrongHost() if wrong_host else MalformedBody("The request cannot be read.")
    return rendered(request, error.as_problem())


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    return rendered(request, Forbidden("You may not do this.").as_problem())


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return rendered(request, NotFound("There is nothing here, or you may not see it.").as_problem())


def server_error(request: HttpRequest) -> HttpResponse:
    """Handle an uncaught error: 503 if the database is the cause, 422 if it could not store a value, otherwise 500.
    Django logs the traceback of a 500 under this request id."""
    error = sys.exc_info()[1]
    known = _as_pointsman_error(error) if isinstance(error, Exception) else None
    if isinstance(known, (Unavailable, InvalidInput)):
        response = rendered(request, known.as_problem())
        if isinstance(known, Unavailable):
            response["Retry-After"] = str(known.retry_after)
            response._has_been_logged = True  # type: ignore[attr-defined]  # logged in one line already; Django would add a traceback
        return response
    request_id = context.current().request_id
    unchanged = "" if request.method in ("GET", "HEAD") else " Nothing was changed."
    detail = f"Something went wrong here, and was logged.{unchanged} Request {request_id}."
    return rendered(
        request, _problem_document(500, "internal", "Internal error", detail, request_id=request_id)
    )


def refusal(request: HttpRequest, error: PointsmanError) -> HttpResponse:
    """Return the response of a middleware that rejects a request."""
    problem, headers = as_problem(error)
    assert problem is not None  # noqa: S101 — our own errors always have one
    response = rendered(request, problem)
    for name, value in headers.items():
        response[name] = value
    return response


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    detail = "The form was open for too long, or came from another site. Go back, reload the page, and send it again."
    response = rendered(request, Forbidden(detail).as_problem())
    response.headers["X-Pointsman-Stale-Form"] = (
        "1"  # tells the console's script to keep the form and its input
    )
    return response


def rendered(request: HttpRequest, problem: dict[str, Any]) -> HttpResponse:
    """Return the problem as a document for machines or as a page for people, depending on the path."""
    if request.path.startswith(MACHINES):
        return JsonResponse(problem, status=problem["status"], content_type=CONTENT_TYPE)
    # No request context: a page about a failure must not fail for the same reason.
    return HttpResponse(render_to_string("error.html", {"problem": problem}), status=problem["status"])


def _problem_document(status: int, code: str, title: str, detail: str, **extra: Any) -> dict[str, Any]:
    kind = f"urn:pointsman:problem:{code}"
    return {"type": kind, "title": title, "status": status, "code": code, "detail": detail, **extra}
