"""Rejects malformed URLs before any view sees them.

A NUL is legal in a URL (`%00`), but PostgreSQL text cannot contain one: a lookup would fail with an error instead of
finding nothing. Rejecting it here means that no view has to handle it.
"""

from collections.abc import Callable

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponseBase

from controlplane.core.errors import MalformedAddress
from controlplane.core.problems import rendered


def readable(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[WSGIRequest], HttpResponseBase]:
    """Middleware that answers 400 to a URL with a NUL."""

    def middleware(request: WSGIRequest) -> HttpResponseBase:
        query = request.META.get("QUERY_STRING", "")
        if "\0" in request.path or "%00" in query or "\0" in query:
            error = MalformedAddress("The address contains a NUL (%00), which no name here can contain.")
            return rendered(request, error.as_problem())
        return get_response(request)

    return middleware
