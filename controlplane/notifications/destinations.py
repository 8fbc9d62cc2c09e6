"""Decide where messages may be sent: to no internal address unless the settings allow it (OWASP, server-side request
forgery).

A URL is parsed once, its host is resolved once, every resolved address is checked, and the connection goes to the
checked address, so a name that resolves differently a moment later (DNS rebinding) changes nothing. Redirects are not
followed. `WEBHOOK_ALLOWED` names internal hosts and networks that may be called, also without TLS.
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings

from controlplane.core.errors import InvalidInput

IP = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Iterable[str]]
MOST = 500  # characters
_HOST = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.ASCII)
# Ranges that `is_global` accepts although no receiver uses them: their addresses embed an arbitrary IPv4 address.
# NAT64, its local kind, 6to4, Teredo, IPv4-compatible.
_EMBEDDING = [
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
]
_NEVER = [
    ipaddress.ip_network(text) for text in ("192.0.0.0/24", "192.88.99.0/24", "fec0::/10", "168.63.129.16/32")
]
# protocol assignments, 6to4 relays, site-local, and Azure's internal service address, which lies in a public range


class DestinationRefused(InvalidInput):
    code, title = "destination_refused", "Messages to this address are not allowed"


@dataclass(frozen=True, slots=True)
class Destination:
    """A parsed URL. `host` is in lower case and without brackets."""

    scheme: str
    host: str
    port: int
    path: str  # including the query
    literal: IP | None  # the host, if it is an IP address

    @property
    def authority(self) -> str:
        """Return the host and port as in `Host` and in URLs."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == {"https": 443, "http": 80}[self.scheme] else f"{name}:{self.port}"

    def at(self, address: str) -> str:
        """Return the URL to connect to, with an IP address in place of the host."""
        number = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{number}:{self.port}{self.path}"


def read(url: str) -> Destination:
    """Parse a URL and make the checks that need no name resolution. Raises `DestinationRefused`."""
    if len(url) > MOST or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
        raise _refused(f"An address may have up to {MOST} ASCII characters, without spaces or backslashes.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _refused(f"It cannot be read: {error}.") from None
    if parts.scheme not in ("https", "http"):
        raise _refused("It must begin with https://.")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise _refused("It must not contain a user name or a password.")
    if parts.fragment:
        raise _refused("It must not have a fragment (#…).")
    if port == 0:
        raise _refused("Port 0 is not allowed.")
    host = (parts.hostname or "").rstrip(".").lower()
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    found = Destination(
        parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path, _literal(host)
    )
    _judge_name(found)
    return found


def resolved(destination: Destination, resolve: Resolve | None = None) -> str:
    """Return the IP address to connect to. All resolved addresses must be allowed. Raises `DestinationRefused`."""
    if destination.literal is not None:
        return str(destination.literal)
    try:
        answers = [
            ipaddress.ip_address(text) for text in (resolve or _ask)(destination.host, destination.port)
        ]
    except (OSError, UnicodeError, ValueError) as error:
        raise _refused(f"{destination.host} cannot be resolved: {error}.") from None
    if not answers:
        raise _refused(f"{destination.host} has no address.")
    if not _is_allowed(destination.host):
        for address in answers:
            _judge_address(destination, address)
    return str(answers[0])


def _ask(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(answer[4][0]).partition("%")[0] for answer in found]


def _literal(host: str) -> IP | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _judge_name(found: Destination) -> None:
    if found.literal is not None:
        _judge_address(found, found.literal)
    elif not _HOST.fullmatch(found.host) or len(found.host) > 253:
        raise _refused("Its host is neither a valid name nor an IP address.")
    elif _is_number(found.host):
        raise _refused("Its host is a number that is not a valid IP address.")
    elif "." not in found.host and not _is_allowed(found.host):
        raise _refused("Its host has no domain, so it would be an internal name.")
    if found.scheme == "http" and not _is_allowed(found.host):
        raise _refused("It must begin with https://. Only hosts in WEBHOOK_ALLOWED may use http://.")


def _is_number(host: str) -> bool:
    """Return whether resolvers read the name as an address: 2130706433, 0x7f.1, 017700000001, 127.1."""
    return re.fullmatch(r"(0x[0-9a-f]*|\d+)", host.rsplit(".", 1)[-1]) is not None


def _judge_address(found: Destination, address: IP) -> None:
    """Raise unless this is a public address, or one that the settings allow."""
    if _is_allowed(found.host) or any(address in network for network in _allowed_networks()):
        return
    if not is_public(address):
        at = "" if found.host.strip("[]") == str(address) else f" is at {address}, which"
        raise _refused(f"{found.host}{at} is internal; WEBHOOK_ALLOWED can allow it.")


def is_public(address: IP) -> bool:
    """Return whether this is a public internet address according to IANA's registries, without an embedded address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _EMBEDDING):
            return False
    if any(address in network for network in _NEVER):
        return False
    return address.is_global and not (
        address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    )


def _is_allowed(host: str) -> bool:
    """Return whether the settings allow this host, or a network that contains it."""
    if host in settings.WEBHOOK_ALLOWED:
        return True
    literal = _literal(host)
    return literal is not None and any(literal in network for network in _allowed_networks())


def can_be_allowed(text: str) -> bool:
    """Return whether an entry of WEBHOOK_ALLOWED is a network, or a host name that `read` accepts."""
    if _network(text) is not None:
        return True
    return _HOST.fullmatch(text) is not None and len(text) <= 253 and not _is_number(text)


def _allowed_networks() -> list[Network]:
    return [network for text in settings.WEBHOOK_ALLOWED if (network := _network(text)) is not None]


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None  # a host name


def _refused(why: str) -> DestinationRefused:
    return DestinationRefused(why, [{"path": "address", "message": why}])
