"""Refuses addresses that no page and no row can have, before any view reads them.

A NUL is legal in an address (`%00`), and no text of PostgreSQL may hold one: a lookup would fail where it should find
nothing. Refused here, no view has to think of it.
"""

from collections.abc import Callable

from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest, HttpResponseBase

from controlplane.core.errors import MalformedAddress
from controlplane.core.problems import rendered


def readable(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[WSGIRequest], HttpResponseBase]:
    """Middleware."""

    def middleware(request: WSGIRequest) -> HttpResponseBase:
        query = request.META.get("QUERY_STRING", "")
        if "\0" in request.path or "%00" in query or "\0" in query:
            error = MalformedAddress("The address has a NUL (%00) in it, and nothing here has such a name.")
            return rendered(request, error.as_problem())
        return get_response(request)

    return middleware
