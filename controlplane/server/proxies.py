"""Who sent a request, where proxies stand in between. Only what TRUSTED_PROXIES names is believed about that.

A proxy adds the address that it was called from to `X-Forwarded-For`. Read from its end, addresses of trusted proxies
are passed over; the first other one is the client's. What stands before it was written by the client, and says nothing.
"""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from django.conf import settings

from controlplane.web.replies import Request

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
# What only a proxy may say. From anybody else it is taken off before Django sees it.
PROXY_HEADERS = frozenset((b"forwarded", b"x-real-ip"))
PREFIX = b"x-forwarded-"


def is_proxys(name: bytes) -> bool:
    """Whether a header (in lower case) is one of those that only a proxy may set."""
    return name in PROXY_HEADERS or name.startswith(PREFIX)


def comes_from_proxy(request: Request) -> bool:
    """Whether the connection is one of a trusted proxy."""
    return is_in(_peer(request), settings.TRUSTED_PROXIES)


def client_address(request: Request) -> str:
    """The client's address; "" where the connection has none."""
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
    """Whether an address is one of those, or in one of those networks."""
    found = _read(address)
    return found is not None and any(found in network for network in networks(tuple(listed)))


@lru_cache(maxsize=16)
def networks(listed: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Raises `ValueError` for what is neither an address nor a network."""
    return tuple(ipaddress.ip_network(text.strip(), strict=False) for text in listed)


@lru_cache(maxsize=4096)
def _read(text: str) -> IP | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A listener for both families tells of IPv4 clients by IPv6 addresses.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _peer(request: Request) -> str:
    client = request.scope.get("client")
    return str(client[0]) if client else ""
