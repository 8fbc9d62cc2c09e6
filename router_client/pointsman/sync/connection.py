"""Where a router's requests go. Checked when the router is created, not at its first poll."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pointsman.errors import ConfigurationError
from pointsman.sync.headers import fits_header

__all__ = ["Connection"]

# Options of httpx.AsyncClient that the protocol sets.
_OURS = frozenset({"base_url", "follow_redirects", "headers", "timeout"})


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of the control plane and the router's key. Raises ConfigurationError for invalid values.

    url        of the control plane, with or without `/router/v1`
    key        the router key, or a function that returns the current one (keys are rotated while routers run)
    snapshots_url   where snapshots are published; None: the control plane serves them itself
    workloads  poll only these; empty means all that the key may read
    wait_s     duration of a long poll; 0 turns long polls off
    max_bytes  a larger snapshot body is refused while it is received
    options    for httpx.AsyncClient: `verify`, `cert`, `proxy`, `transport`, …
    """

    url: str
    key: str | Callable[[], str]
    client: str
    snapshots_url: str | None = None
    workloads: tuple[str, ...] = ()
    wait_s: int = 25
    max_bytes: int = 64 << 20
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not callable(self.key) and (not isinstance(self.key, str) or not self.key.strip()):
            raise ConfigurationError(
                "key is missing or empty: give the router key (pmr_…), or a function that returns it"
            )
        if not callable(self.key) and not fits_header(self.key.strip()):
            raise ConfigurationError(
                "key has characters that no key has, such as a line break within it: copy it again"
            )
        object.__setattr__(self, "url", _checked("url", self.url))
        if self.snapshots_url is not None:
            object.__setattr__(self, "snapshots_url", _checked("snapshots_url", self.snapshots_url))
            if self.workloads:
                raise ConfigurationError(
                    "workloads cannot be chosen with snapshots_url: a published snapshot contains all of them"
                )
        if ours := sorted(_OURS & set(self.options)):
            raise ConfigurationError(f"http cannot set {', '.join(ours)}: the protocol does")


def _checked(name: str, url: str) -> str:
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65,535, half an IPv6 address
        known = False
    if not known:
        raise ConfigurationError(f"{name} must be like https://pointsman.example, not {url!r}")
    if parts.username or parts.query or parts.fragment:
        raise ConfigurationError(
            f"{name} may contain only scheme, host, port and path; pass the key as `key`"
        )
    return url.rstrip("/").removesuffix("/router/v1")
