"""API keys, held in memory so that a request needs no query.

The data plane's watcher reads all keys every 0.8 seconds and replaces the whole map, so a revoked key stops working in
every process within two seconds. A key that is not in the map may be newer than the last read. `Keyring.missing`
distinguishes such a key from a mistyped one by its checksum; only the former justifies another read.
"""

import hashlib
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from controlplane.access.keys import ParsedKey, check, parse_key
from controlplane.access.models import Key
from controlplane.core.clock import now
from controlplane.core.errors import Unauthenticated, WrongKeyKind

_SCHEME = b"bearer "
_NOBODY = "The request needs `Authorization: Bearer <router key>`."


@dataclass(frozen=True, slots=True)
class Caller:
    """A stored key, as of the last read."""

    pk: int
    kind: str
    key_id: str
    environment: str
    secret_sha256: str
    workloads: frozenset[str] | None  # None: all of the environment
    expires_at: datetime | None
    revoked_at: datetime | None
    # Unix seconds: the expiry, minus infinity if revoked, infinity for neither. The only check on the fast path.
    dies_at: float

    def may_report(self, workload: str) -> bool:
        return self.workloads is None or workload in self.workloads


class Keyring:
    """All keys, by the hash of their text. One per process; the watcher replaces the contents."""

    def __init__(self) -> None:
        self._by_secret: dict[str, Caller] = {}
        self._ahead = 0.0  # seconds by which the database's clock is ahead of this process's

    def reload(self) -> None:
        """Read every key. Called by the watcher's thread."""
        rows = Key.objects.values_list(
            "pk", "kind", "key_id", "environment", "secret_sha256", "workloads", "expires_at", "revoked_at"
        )
        fresh = {caller.secret_sha256: caller for caller in (_caller(*row) for row in rows.iterator())}
        self._ahead = now().timestamp() - time.time()
        self._by_secret = fresh

    def router(self, authorization: bytes | None) -> Caller:
        """Return the router key of an `Authorization` header. Raises `Unauthenticated` or `WrongKeyKind`."""
        if authorization is None or authorization[:7].lower() != _SCHEME:
            raise Unauthenticated(_NOBODY)
        caller = self._by_secret.get(hashlib.sha256(authorization[7:].strip()).hexdigest())
        if caller is None or caller.dies_at <= time.time() + self._ahead:
            raise self._refusal(parse_key(authorization[7:].strip().decode("latin-1")), caller)
        if caller.kind != Key.Kind.ROUTER:
            raise WrongKeyKind(f"This is an {caller.kind} key; routers need a router key (pmr_…).")
        return caller

    def still_good(self, caller: Caller) -> Caller:
        """Return the key's current state, for a request that has waited. Raises like `router`."""
        known = self._by_secret.get(caller.secret_sha256)
        if known is None or known.dies_at <= time.time() + self._ahead:
            parsed = ParsedKey(caller.kind, caller.environment, caller.key_id, caller.secret_sha256)
            raise self._refusal(parsed, known)
        return known

    def missing(self, authorization: bytes | None) -> bool:
        """Return whether this is a well-formed key that was unknown at the last read, so it may have been issued
        since."""
        if authorization is None or authorization[:7].lower() != _SCHEME:
            return False
        parsed = parse_key(authorization[7:].strip().decode("latin-1"))
        return parsed is not None and parsed.secret_sha256 not in self._by_secret

    def _refusal(self, parsed: ParsedKey | None, caller: Caller | None) -> Unauthenticated:
        """Return the reason for a refusal, by the same rule as in the admin API."""
        try:
            check(parsed, caller, datetime.fromtimestamp(time.time() + self._ahead, UTC))
        except Unauthenticated as refusal:
            return refusal
        return Unauthenticated("This key is no longer valid.")  # it expired between the two checks


def _caller(
    pk: int,
    kind: str,
    key_id: str,
    environment: str,
    secret_sha256: str,
    workloads: list[str],
    expires_at: datetime | None,
    revoked_at: datetime | None,
) -> Caller:
    names = frozenset(workloads) or None
    dies_at = float("inf") if expires_at is None else expires_at.timestamp()
    if revoked_at is not None:
        dies_at = float("-inf")
    return Caller(pk, kind, key_id, environment, secret_sha256, names, expires_at, revoked_at, dies_at)
