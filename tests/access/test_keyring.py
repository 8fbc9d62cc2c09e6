"""The data plane's keys in memory: who gets in, who does not and why, and when another read may help."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from controlplane.access import actions, keys
from controlplane.access.keyring import Caller, Keyring
from controlplane.access.models import Key
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import KeyExpired, KeyRevoked, Unauthenticated, WrongKeyKind

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def noon(settings: Any) -> Iterator[Any]:
    settings.CLOCK = "process"
    with time_machine.travel("2026-03-01T12:00:00Z", tick=False) as now:
        yield now


def issued(kind: str = "router", **fields: Any) -> tuple[Key, bytes]:
    """Return a key with its `Authorization` header."""
    scopes = ["viewer"] if kind == "admin" else []
    key, text = actions.issue_key(kind, "production", "a key", actor=SYSTEM, scopes=scopes, **fields)
    return key, f"Bearer {text}".encode()


def read() -> Keyring:
    keyring = Keyring()
    keyring.reload()
    return keyring


def test_a_router_key_is_its_caller() -> None:
    key, header = issued(expires_at=clock.now() + timedelta(hours=1))
    issued()
    caller = read().router(header)
    assert (caller.pk, caller.kind, caller.key_id, caller.environment) == (
        key.pk, "router", key.key_id, "production",
    )  # fmt: skip
    assert (caller.expires_at, caller.revoked_at, caller.secret_sha256) == (
        key.expires_at, None, key.secret_sha256,
    )  # fmt: skip


@pytest.mark.parametrize("shape", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}  "])
def test_the_scheme_is_read_in_any_case(shape: str) -> None:
    _, header = issued()
    text = header.decode().removeprefix("Bearer ")
    assert read().router(shape.format(text).encode())


@pytest.mark.parametrize("header", [None, b"", b"Basic abc", b"Bearer", b"pmr_production_x", b"Bearer\xff"])
def test_without_a_bearer_key_it_says_what_is_needed(header: bytes | None) -> None:
    issued()
    with pytest.raises(Unauthenticated, match="Bearer <router key>"):
        read().router(header)
    assert read().missing(header) is False


@pytest.mark.parametrize("header", [b"Bearer ", b"Bearer pmr_x", b"Bearer \xff\xfe", b"Bearer " + b"a" * 300])
def test_a_malformed_key_is_unknown_and_no_reason_to_read_again(header: bytes) -> None:
    issued()
    with pytest.raises(Unauthenticated, match="unknown"):
        read().router(header)
    assert read().missing(header) is False


def test_a_key_issued_since_the_last_read_is_missing_until_the_next() -> None:
    keyring = read()
    _, header = issued()
    with pytest.raises(Unauthenticated, match="unknown"):
        keyring.router(header)
    assert keyring.missing(header) is True
    keyring.reload()
    assert keyring.missing(header) is False
    assert keyring.router(header)


def test_a_well_formed_key_that_nobody_issued_stays_missing() -> None:
    issued()
    header = f"Bearer {keys.new_key_text('router', 'production')[1]}".encode()
    keyring = read()
    assert keyring.missing(header) is True
    with pytest.raises(Unauthenticated, match="unknown"):
        keyring.router(header)


def test_an_admin_key_is_of_the_wrong_kind() -> None:
    _, header = issued("admin")
    with pytest.raises(WrongKeyKind, match="an admin key; routers need a router key"):
        read().router(header)


def revoked(key: Key) -> None:
    actions.revoke_key(key.key_id, actor=SYSTEM, reason="lost")


def deleted(key: Key) -> None:
    key.delete()


def expired(key: Key) -> None:
    Key.objects.filter(pk=key.pk).update(expires_at=clock.now())


def assert_refused(keyring: Keyring, header: bytes, caller: Caller, error: type[Unauthenticated]) -> None:
    with pytest.raises(Unauthenticated) as at_first:
        keyring.router(header)
    with pytest.raises(Unauthenticated) as after_a_wait:
        keyring.still_good(caller)
    assert type(at_first.value) is type(after_a_wait.value) is error


@pytest.mark.parametrize(
    ("end", "error"), [(revoked, KeyRevoked), (expired, KeyExpired), (deleted, Unauthenticated)]
)
def test_a_key_that_has_ended_is_refused_with_the_reason(
    end: Callable[[Key], None], error: type[Unauthenticated]
) -> None:
    """Also for a request that has waited, such as a long poll."""
    key, header = issued()
    keyring = read()
    caller = keyring.router(header)
    assert keyring.still_good(caller) == caller
    end(key)
    assert keyring.router(header) == caller, "as of the last read"
    keyring.reload()
    assert_refused(keyring, header, caller, error)


def test_a_key_expires_between_two_reads(noon: Any) -> None:
    _, header = issued(expires_at=clock.now() + timedelta(minutes=1))
    keyring = read()
    caller = keyring.router(header)
    noon.shift(timedelta(seconds=59))
    assert keyring.router(header) == keyring.still_good(caller) == caller
    noon.shift(timedelta(seconds=1))
    assert_refused(keyring, header, caller, KeyExpired)


@pytest.mark.parametrize("ahead", [-120, 120])
def test_a_key_expires_by_the_clock_of_the_database(
    ahead: int, noon: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of this process is two minutes slow or fast."""
    now = clock.now
    monkeypatch.setattr("controlplane.access.keyring.now", lambda: now() + timedelta(seconds=ahead))
    key, header = issued()
    Key.objects.filter(pk=key.pk).update(expires_at=now() + timedelta(seconds=ahead + 1))
    keyring = read()
    caller = keyring.router(header)
    assert keyring.still_good(caller)
    noon.shift(timedelta(seconds=1))
    assert_refused(keyring, header, caller, KeyExpired)


def test_a_revocation_counts_before_a_later_expiry() -> None:
    key, header = issued(expires_at=clock.now() + timedelta(days=1))
    revoked(key)
    with pytest.raises(KeyRevoked):
        read().router(header)


def test_a_key_revoked_under_a_clock_that_was_ahead_stays_revoked(noon: Any) -> None:
    """It had come back to life when the clock was put right, for a day in which it could not be revoked again."""
    key, header = issued()
    caller = read().router(header)
    noon.shift(timedelta(days=1))
    revoked(key)
    noon.shift(timedelta(days=-1))
    assert_refused(read(), header, caller, KeyRevoked)


@pytest.mark.parametrize(
    ("workloads", "workload", "may"),
    [
        ([], "support", True),
        (["support"], "support", True),
        (["support", "sales"], "sales", True),
        (["sales"], "support", False),
    ],
)
def test_it_reports_on_the_workloads_that_it_is_limited_to(
    workloads: list[str], workload: str, may: bool
) -> None:
    _, header = issued(workloads=workloads)
    assert read().router(header).may_report(workload) is may


def test_an_empty_keyring_knows_nobody() -> None:
    _, header = issued()
    keyring = Keyring()
    with pytest.raises(Unauthenticated):
        keyring.router(header)
    assert keyring.missing(header) is True
