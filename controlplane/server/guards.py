"""Checks that the gateway makes before it answers: the host name, and access to the metrics."""

import hmac
from functools import lru_cache

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from controlplane.core.errors import Forbidden, Unauthenticated, WrongHost
from controlplane.server import proxies
from controlplane.web.replies import Request


def require_host(host: bytes) -> None:
    """Raise `WrongHost` for a host that is not in ALLOWED_HOSTS. This stops DNS rebinding from reaching the
    router endpoints."""
    if not _is_ours(host, tuple(settings.ALLOWED_HOSTS)):
        raise WrongHost


@lru_cache(maxsize=1024)
def _is_ours(host: bytes, allowed: tuple[str, ...]) -> bool:
    name, _ = split_domain_port(host.decode("latin-1"))
    return bool(name) and validate_host(name, allowed)


def require_scraper(request: Request) -> None:
    """Require METRICS_KEY or one of METRICS_ADDRESSES for `/metrics`, if either is set; otherwise it is open."""
    if not (settings.METRICS_KEY or settings.METRICS_ADDRESSES):
        return
    if proxies.is_in(proxies.client_address(request), settings.METRICS_ADDRESSES):
        return
    if not settings.METRICS_KEY:
        raise Forbidden("Metrics may be read only from the addresses in METRICS_ADDRESSES.")
    scheme, _, key = request.headers.get(b"authorization", b"").partition(b" ")
    fits = hmac.compare_digest(key.strip(), settings.METRICS_KEY.encode())
    if scheme.lower() != b"bearer" or not fits:
        raise Unauthenticated("Metrics need `Authorization: Bearer <METRICS_KEY>`.")
