"""The client address of a request that came through proxies. Only TRUSTED_PROXIES are trusted to report it.

Each proxy appends the address of its caller to `X-Forwarded-For`. Read from the end, addresses of trusted proxies are
skipped, and the first other one is the client's. Anything before it was written by the client and cannot be trusted.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from django.conf import settings

from controlplane.web.replies import Request

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
# Headers that only a proxy may set. From any other client they are removed before Django sees them.
PROXY_HEADERS = frozenset((b"forwarded", b"x-real-ip"))
PREFIX = b"x-forwarded-"


def is_proxys(name: bytes) -> bool:
    """Return whether only a proxy may set this header (in lower case)."""
    return name in PROXY_HEADERS or name.startswith(PREFIX)


def comes_from_proxy(request: Request) -> bool:
    """Return whether the connection comes from a trusted proxy."""
    return is_in(_peer(request), settings.TRUSTED_PROXIES)


def client_address(request: Request) -> str:
    """Return the client's address, or "" if the connection has none."""
    peer = _peer(request)
    if not comes_from_proxy(request):
        return peer
    found = peer
    for text in reversed(request.headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
        address = _read(text.strip())
        if address is None:
            break
        found = str(address)
        if not is_in(found, settings.TRUSTED_PROXIES):
            break
    return found


def is_in(address: str, listed: Iterable[str]) -> bool:
    """Return whether the address is in the list of addresses and networks."""
    found = _read(address)
    return found is not None and any(found in network for network in networks(tuple(listed)))


@lru_cache(maxsize=16)
def networks(listed: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Parse addresses and networks. Raises `ValueError` for anything else."""
    return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in listed)


@lru_cache(maxsize=4096)
def _read(text: str) -> IP | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A dual-stack listener reports IPv4 clients as IPv4-mapped IPv6 addresses.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _peer(request: Request) -> str:
    client = request.scope.get("client")
    return str(client[0]) if client else ""
