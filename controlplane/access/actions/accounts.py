"""Accounts as recorded in the audit log, and writes to them outside the people pages.

The entries of an account cover everything that lets somebody sign in or makes them an administrator, so `audit verify`
detects changes that bypassed them. Passwords and second factors are recorded as fingerprints, which show only whether
they are the same.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from controlplane.access.actions.names import refuse_reserved
from controlplane.access.actions.sessions import end_waiting_sign_ins_of
from controlplane.audit import log
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists

COLUMNS = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser")
STOCK = "user.take_stock"
REHASH = "password.rehash"  # the same password, hashed again
_MADE = ("user.first_admin", "user.create")


def person_fields(user: User) -> dict[str, Any]:
    """Return a person's fields for the audit log."""
    factors = Authenticator.objects.filter(user_id=user.pk)
    accounts = SocialAccount.objects.filter(user_id=user.pk).values_list("provider", "uid")
    return {name: getattr(user, name) for name in COLUMNS} | {
        "password": _fingerprint("password", user.password),
        "second_factors": sorted(f"{row.type} {_of_factor(row)}" for row in factors),
        "providers": sorted(f"{provider} {uid}" for provider, uid in accounts),
    }


def _of_factor(row: Authenticator) -> str:
    """Return a factor's fingerprint, without what its use changes (the remaining recovery codes)."""
    lasting = row.data
    if isinstance(lasting, dict):  # always, unless somebody wrote it by hand
        lasting = {name: value for name, value in lasting.items() if name != "used_mask"}
    return _fingerprint("second_factor", json.dumps(lasting, sort_keys=True))


def _fingerprint(what: str, secret: str) -> str:
    return hashlib.sha256(f"pointsman.{what} {secret}".encode()).hexdigest()[:16]


@contextmanager
def account_change(
    user: User, action: str, *, actor: Actor, reason: str = "", evidence: Any = None
) -> Iterator[None]:
    """Run a change to an account in a transaction, and append its entry last.

    A new password ends sign-ins that began with the old one and wait for a second factor.
    """
    with transaction.atomic():
        before = person_fields(User.objects.select_for_update().get(pk=user.pk))
        yield
        changed = User.objects.get(pk=user.pk)
        after = person_fields(changed)
        if after["password"] != before["password"] and action != REHASH:
            end_waiting_sign_ins_of(changed)
        log.record(
            actor=actor,
            action=action,
            target=("user", str(user.pk)),
            reason=reason,
            before=before,
            after=after,
            evidence=evidence,
        )


def create_person(
    username: str,
    *,
    actor: Actor,
    reason: str,
    password: str | None = None,
    superuser: bool = False,
    action: str = "user.create",
) -> User:
    """Create an account without an invitation, as server commands do. Without a password it cannot be used to log
    in."""
    user = User(username=username, is_superuser=superuser, is_staff=superuser)
    user.set_password(password)  # before the transaction: hashing takes long, and SQLite has one writer
    with transaction.atomic():
        save_new(user)
        log.record(
            actor=actor,
            action=action,
            target=("user", str(user.pk)),
            reason=reason,
            after=person_fields(user),
        )
    return user


def save_new(user: User) -> None:
    """Insert a new person. Raises `AlreadyExists` if the name is taken, ignoring case, and `NameReserved`."""
    refuse_reserved(username=user.username)
    taken = AlreadyExists(f"The name {user.username} is taken; choose another one.")
    if User.objects.filter(username__iexact=user.username).exists():
        raise taken
    try:
        with transaction.atomic():
            user.save(force_insert=True)
    except IntegrityError:
        raise taken from None


def change_password(
    user: User, password: str, *, actor: Actor, reason: str, action: str = "password.change"
) -> User:
    """Set a new password. All sessions of this person end."""
    user.set_password(password)
    with account_change(user, action, actor=actor, reason=reason):
        user.save(update_fields=["password"])
    return user


def take_stock() -> None:
    """Record the accounts of an instance whose older entries do not describe them completely.

    This happens once, and never if the first account's entry is complete: otherwise a row inserted into the table by
    hand would be accepted at the next start.
    """
    with transaction.atomic():
        if Entry.objects.filter(action=STOCK).exists() or _is_fully_recorded():
            return
        people = {str(user.pk): person_fields(user) for user in User.objects.order_by("pk")}
        if people:
            log.record(
                actor=SYSTEM,
                action=STOCK,
                target=("user", "all"),
                reason="From now on the log describes accounts completely; these existed before.",
                after=people,
            )


def _is_fully_recorded() -> bool:
    first = Entry.objects.filter(action__in=_MADE, outcome="done").order_by("seq").values_list("body").first()
    return first is not None and any(
        change["path"] == "/password" for change in json.loads(bytes(first[0]))["diff"]
    )
