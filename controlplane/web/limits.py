"""Rate limits per minute and address, for sign-ins and the API. Beyond them: 429, with the seconds to wait.

A sliding window built from two fixed ones: the current minute's count, plus the part of the last minute's count that
lies within the past 60 seconds. Counts are kept in the cache. With REDIS_URL all processes share them; without it each
process counts separately, so N processes allow N times as many requests. If the cache is unavailable, every request
passes, with a warning: the lockouts of django-axes are in the database and still hold. An IPv6 address counts as its
/64, which one household has.
"""

import ipaddress
import logging
import math
import re
import time
from collections.abc import Callable

from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest, HttpResponseBase
from prometheus_client import Counter

from controlplane.core import problems
from controlplane.core.errors import TooMany

log = logging.getLogger(__name__)
MINUTE = 60
SIGN_INS = ("/console/login/", "/console/account/", "/console/invitation/")
# A GET makes a session, and asks the company's provider or a challenge for a passkey.
_STARTS = re.compile(r"/console/login/(with/[^/]+|passkey)/")
LIMITED = Counter("pointsman_limited", "Requests refused because their address sent too many", ["door"])
_WARN_EVERY_S = 60.0
_warned_at = -math.inf  # monotonic time of the last warning


def limit_by_address(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        door, limit = _limit(request)
        wait = seconds_to_wait(door, str(request.META.get("REMOTE_ADDR", "")), limit) if limit else 0
        if not wait:
            return get_response(request)
        LIMITED.labels(door).inc()
        refusal = TooMany(
            f"This address sent more than {limit} requests in a minute; try again in {wait} s.",
            retry_after=wait,
        )
        return problems.refusal(request, refusal)

    return middleware


def _limit(request: HttpRequest) -> tuple[str, int]:
    """Return the limit's name, and the requests per minute that one address may send; 0 means no limit."""
    if request.path.startswith("/api/"):
        return "api", settings.API_LIMIT
    if _STARTS.fullmatch(request.path) or (request.method == "POST" and request.path.startswith(SIGN_INS)):
        return "sign_in", settings.SIGN_IN_LIMIT
    return "", 0


def seconds_to_wait(door: str, address: str, limit: int) -> int:
    """Count a request. Return the seconds to wait, or 0 if it may proceed."""
    now = time.time()
    minute, elapsed = divmod(now, MINUTE)
    try:
        here, before = _count(door, counted_address(address), int(minute))
    except Exception as error:  # a broken cache must not lock everybody out
        _warn(error)
        return 0
    weighted = here + before * (1 - elapsed / MINUTE)
    return 0 if weighted <= limit else max(1, math.ceil(MINUTE - elapsed))


def _count(door: str, address: str, minute: int) -> tuple[int, int]:
    """Count this request. Return this minute's count and the last minute's."""
    cache = caches["limits"]
    key, last = (f"limit:{door}:{address}:{number}" for number in (minute, minute - 1))
    cache.add(key, 0, timeout=2 * MINUTE)
    return int(cache.incr(key)), int(cache.get(last, 0))


def counted_address(address: str) -> str:
    """Return the address, or network, that requests are counted under."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    mapped = found.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.ip_network((found, 64), strict=False).network_address)


def _warn(error: Exception) -> None:
    global _warned_at
    if time.monotonic() - _warned_at > _WARN_EVERY_S:
        _warned_at = time.monotonic()
        log.warning("the cache cannot count requests, so there is no rate limit (%s)", type(error).__name__)
