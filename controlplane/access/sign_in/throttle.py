"""django-axes settings: failed sign-ins are counted by name and address together; after ten, that pair waits 15
minutes.

Counting the pair prevents locking somebody else out from elsewhere. The typed name may be a password in the wrong
field, so only a keyed hash of it is stored.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.crypto import salted_hmac


def counted_name(request: HttpRequest, credentials: Mapping[str, Any] | None) -> str:
    """Return the hash under which a typed name is counted: the same for every spelling that finds the same person."""
    typed = (credentials or {}).get("username") or request.POST.get("username") or ""
    name = unicodedata.normalize("NFKC", str(typed)).strip().casefold()
    return salted_hmac("pointsman.sign_in", name, algorithm="sha256").hexdigest()[:32]


def address(request: HttpRequest) -> str:
    """Return the client's address; proxies have already been resolved."""
    return str(request.META.get("REMOTE_ADDR") or "unknown")


def client_address(request: HttpRequest) -> str | None:
    """Return the address for the counts, or None: their column accepts only addresses."""
    return request.META.get("REMOTE_ADDR") or None


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: Mapping[str, Any] | None
) -> HttpResponse:
    """Return the lockout page. It is the same whether or not there is such a person."""
    wait = settings.AXES_COOLOFF_TIME
    context = {**admin.site.each_context(request), "minutes": int(wait.total_seconds() // 60)}
    page = render(request, "account/locked_out.html", context, status=429)
    page["Retry-After"] = str(int(wait.total_seconds()))
    return page
