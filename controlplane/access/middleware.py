"""Gives every request an id and a source, for its log lines and audit entries."""

import re
from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

from controlplane.core.context import request_context

# A caller may send an id, to follow a request through several systems, but nothing that could forge a log line.
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def origin(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        brought = request.headers.get("X-Request-ID", "")
        entrance = "api" if request.path.startswith("/api/") else "console"
        source = f"{entrance} {request.META.get('REMOTE_ADDR', '')}".rstrip()
        with request_context(brought if _ID.fullmatch(brought) else "", source) as found:
            response = get_response(request)
        response["X-Request-ID"] = found.request_id
        return response

    return middleware
