"""django-axes: failed sign-ins are counted by name and address together; after ten, that pair waits 15 minutes.

By the pair, so that nobody can lock somebody else out from elsewhere. The name that was typed may be a password in
the wrong field: what is kept of it is a keyed hash.
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
    """What stands for the typed name in the counts: the same for every spelling that finds the same person."""
    typed = (credentials or {}).get("username") or request.POST.get("username") or ""
    name = unicodedata.normalize("NFKC", str(typed)).strip().casefold()
    return salted_hmac("pointsman.sign_in", name, algorithm="sha256").hexdigest()[:32]


def address(request: HttpRequest) -> str:
    """Where the request comes from; proxies were looked through before."""
    return str(request.META.get("REMOTE_ADDR") or "unknown")


def client_address(request: HttpRequest) -> str | None:
    """The same for the counts: their column holds addresses only."""
    return request.META.get("REMOTE_ADDR") or None


def locked_out(
    request: HttpRequest, response: HttpResponse | None, credentials: Mapping[str, Any] | None
) -> HttpResponse:
    """The page of somebody who failed too often. It says the same whether there is such a person or not."""
    wait = settings.AXES_COOLOFF_TIME
    context = {**admin.site.each_context(request), "minutes": int(wait.total_seconds() // 60)}
    page = render(request, "account/locked_out.html", context, status=429)
    page["Retry-After"] = str(int(wait.total_seconds()))
    return page
