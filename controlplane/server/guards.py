"""What a request must be before the gateway answers it: for a host that is ours, and figures for who may read them."""

import hmac
from functools import lru_cache

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from controlplane.core.errors import Forbidden, MalformedBody, Unauthenticated
from controlplane.server import proxies
from controlplane.web.replies import Request


def require_host(host: bytes) -> None:
    """Raise `MalformedBody` for a host that ALLOWED_HOSTS does not have: a name that somebody points at this server
    (DNS rebinding) reaches no router's door."""
    if not _is_ours(host, tuple(settings.ALLOWED_HOSTS)):
        raise MalformedBody("This host name is not answered here: ALLOWED_HOSTS does not have it.")


@lru_cache(maxsize=1024)
def _is_ours(host: bytes, allowed: tuple[str, ...]) -> bool:
    name, _ = split_domain_port(host.decode("latin-1"))
    return bool(name) and validate_host(name, allowed)


def require_scraper(request: Request) -> None:
    """`/metrics` is open until METRICS_KEY or METRICS_ADDRESSES is set; then one of them must fit."""
    if not (settings.METRICS_KEY or settings.METRICS_ADDRESSES):
        return
    if proxies.is_in(proxies.client_address(request), settings.METRICS_ADDRESSES):
        return
    if not settings.METRICS_KEY:
        raise Forbidden("Figures are read from the addresses in METRICS_ADDRESSES.")
    scheme, _, key = request.headers.get(b"authorization", b"").partition(b" ")
    fits = hmac.compare_digest(key.strip(), settings.METRICS_KEY.encode())
    if scheme.lower() != b"bearer" or not fits:
        raise Unauthenticated("Figures take `Authorization: Bearer <METRICS_KEY>`.")
