"""Accounts as the audit log keeps them, and what is written to them outside of a page of people.

Everything by which somebody signs in or counts as an administrator is in an account's entries, so that `audit verify`
finds what was changed past them: of a password, a second factor or a provider's account a fingerprint, which shows
that it is the same and nothing else.
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

from controlplane.audit import log
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists

COLUMNS = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser")
STOCK = "user.take_stock"
_MADE = ("user.first_admin", "user.create")


def person_fields(user: User) -> dict[str, Any]:
    """A person as the audit log keeps them."""
    factors = Authenticator.objects.filter(user_id=user.pk)
    accounts = SocialAccount.objects.filter(user_id=user.pk).values_list("provider", "uid")
    return {name: getattr(user, name) for name in COLUMNS} | {
        "password": _fingerprint("password", user.password),
        "second_factors": sorted(f"{row.type} {_of_factor(row)}" for row in factors),
        "providers": sorted(f"{provider} {uid}" for provider, uid in accounts),
    }


def _of_factor(row: Authenticator) -> str:
    """Without what using it changes: which of the recovery codes are left."""
    lasting = {name: value for name, value in row.data.items() if name != "used_mask"}
    return _fingerprint("second_factor", json.dumps(lasting, sort_keys=True))


def _fingerprint(what: str, secret: str) -> str:
    return hashlib.sha256(f"pointsman.{what} {secret}".encode()).hexdigest()[:16]


@contextmanager
def account_change(
    user: User, action: str, *, actor: Actor, reason: str = "", evidence: Any = None
) -> Iterator[None]:
    """A transaction around a change to somebody's account; its entry is appended last."""
    with transaction.atomic():
        before = person_fields(User.objects.select_for_update().get(pk=user.pk))
        yield
        log.record(
            actor=actor,
            action=action,
            target=("user", str(user.pk)),
            reason=reason,
            before=before,
            after=person_fields(User.objects.get(pk=user.pk)),
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
    """Make an account past an invitation: what a command on the server does. Without a password nobody logs in."""
    user = User(username=username, is_superuser=superuser, is_staff=superuser)
    user.set_password(password)  # before the transaction: a hash takes long, and SQLite has one writer
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
    """Insert the row of somebody whose name, in whatever case, nobody has."""
    taken = AlreadyExists(f"Somebody is called {user.username} already; choose another name.")
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
    """A new password; every session of this person ends with it."""
    user.set_password(password)
    with account_change(user, action, actor=actor, reason=reason):
        user.save(update_fields=["password"])
    return user


def take_stock() -> None:
    """Keep an entry of the accounts of an instance that was made before their entries said all of them.

    Once, and never where the first account's entry says it: else a row that somebody puts into the table would be
    believed after the next start.
    """
    with transaction.atomic():
        if Entry.objects.filter(action=STOCK).exists() or _is_told_whole():
            return
        people = {str(user.pk): person_fields(user) for user in User.objects.order_by("pk")}
        if people:
            log.record(
                actor=SYSTEM,
                action=STOCK,
                target=("user", "all"),
                reason="From here on the log says all of an account; these were there before.",
                after=people,
            )


def _is_told_whole() -> bool:
    first = Entry.objects.filter(action__in=_MADE, outcome="done").order_by("seq").values_list("body").first()
    return first is not None and any(
        change["path"] == "/password" for change in json.loads(bytes(first[0]))["diff"]
    )
