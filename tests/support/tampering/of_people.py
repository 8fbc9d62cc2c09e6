"""Ways to tamper with accounts, invitations, requests for a second person, break-glass and receivers."""

import random
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db import connection

from controlplane.access.models import ChangeRequest, Invitation
from controlplane.notifications.models import BreakGlass, Receiver
from tests.support.tampering.draws import Change, Names, other_hash, sql
from tests.support.tampering.of_rows import column_of, flipped, later, row_gone, row_twice, text


def person_label(row: User) -> str:
    return f"person {row.pk}"


def invitation_label(row: Invitation) -> str:
    return f"invitation {row.pk}"


def request_label(row: ChangeRequest) -> str:
    return f"change request {row.pk}"


def glass_label(row: BreakGlass) -> str:
    return f"break-glass of entry {row.entry}"


def receiver_label(row: Receiver) -> str:
    return f"receiver {row.pk}"


def owner_label(row: Authenticator | SocialAccount) -> str:
    return f"person {row.user_id}"


def _another(rng: random.Random, row: Any) -> None:
    """Give the row a new id and new unique values, so that it can be inserted as another row."""
    row.id = type(row)._meta.pk.get_default()
    for column in ("token_sha256", "name"):
        if hasattr(row, column):
            setattr(row, column, other_hash(rng)[:40])


def _own_password(rng: random.Random, value: Any) -> str:
    """Return a password hash that the attacker knows, or another person's."""
    return rng.choice(["md5$salt$" + other_hash(rng)[:32], User.objects.exclude(password=value)[0].password])


def _somebody_new(rng: random.Random) -> Names:
    """Insert an account for the attacker."""
    row = User(
        username=text(rng, ""), password="md5$x$" + other_hash(rng)[:32], is_superuser=rng.random() < 0.5
    )
    row.save(force_insert=True)
    return {person_label(row)}


def _person_gone(rng: random.Random) -> Names:
    """Delete an account. (Emma's, which no foreign key refers to.)"""
    row = User.objects.get(username="emma")
    sql("DELETE FROM auth_user WHERE id = %s", row.pk)
    return {person_label(row)}


def _factor_of_somebody_else(rng: random.Random) -> Names:
    """Add the attacker's authenticator app to an administrator's account."""
    root = User.objects.get(username="root")
    made = Authenticator(user=root, type="totp", data={"secret": other_hash(rng)})
    made.save(force_insert=True)
    return {person_label(root)}


def _provider_of_somebody_else(rng: random.Random) -> Names:
    """Connect the attacker's account at the company's provider to an administrator's account."""
    root = User.objects.get(username="root")
    SocialAccount(user=root, provider="company", uid=other_hash(rng)).save(force_insert=True)
    return {person_label(root)}


def _agreed_by_hand(rng: random.Random) -> Names:
    row = ChangeRequest.objects.get(state="waiting")
    given = {"user_id": "3", "label": "carl", "reason": "yes", "at": "2026-01-01T00:00:00+00:00"}
    ChangeRequest.objects.filter(pk=row.pk).update(approvals=[given])
    return {request_label(row)}


def _request_gone(rng: random.Random) -> Names:
    row = rng.choice(list(ChangeRequest.objects.order_by("pk")))
    pk = ChangeRequest._meta.pk.get_db_prep_value(row.pk, connection)
    sql("DELETE FROM access_changerequest WHERE id = %s", pk)
    return {request_label(row)}


OF_PEOPLE: dict[str, Change] = {
    "person: an administrator by hand": column_of(
        User, "is_superuser", person_label, flipped, username="dora"
    ),
    "person: closed or opened by hand": column_of(
        User, "is_active", person_label, flipped, username__in=["carl", "dora"]
    ),
    "person: another name": column_of(User, "username", person_label, text, username="dora"),
    "person: staff by hand": column_of(User, "is_staff", person_label, flipped),
    **{
        f"person: another {column}": column_of(User, column, person_label, text)
        for column in ("email", "first_name", "last_name")
    },
    "person: another password": column_of(User, "password", person_label, _own_password),
    "person: one that nobody made": _somebody_new,
    "person: gone": _person_gone,
    "second factor: gone": row_gone(Authenticator, owner_label),
    "second factor: its secret": column_of(
        Authenticator,
        "data",
        owner_label,
        lambda rng, v: {**v, rng.choice(["secret", "seed"]): other_hash(rng)},
    ),
    "passkey: another device's": column_of(
        Authenticator,
        "data",
        owner_label,
        lambda rng, v: {**v, "credential": {**v["credential"], "id": other_hash(rng)}},
        type="webauthn",
    ),
    "second factor: somebody else's": column_of(
        Authenticator, "user_id", owner_label, lambda rng, v: User.objects.exclude(pk=v).order_by("pk")[0].pk
    ),
    "second factor: one that nobody set up": _factor_of_somebody_else,
    "provider: another account": column_of(SocialAccount, "uid", owner_label, text),
    "provider: gone": row_gone(SocialAccount, owner_label),
    "provider: one that nobody connected": _provider_of_somebody_else,
    "request: what it asks for": column_of(
        ChangeRequest, "subject", request_label, lambda rng, v: {**v, "user_id": "1"}
    ),
    "request: its environment": column_of(ChangeRequest, "environment", request_label, text),
    "request: who had a part in it": column_of(
        ChangeRequest, "contributors", request_label, lambda rng, v: v[1:] if v else ["9"]
    ),
    "request: who agreed": column_of(
        ChangeRequest,
        "approvals",
        request_label,
        lambda rng, v: [{**v[0], "user_id": text(rng, "")}],
        state="applied",
    ),
    "request: agreed to by hand": _agreed_by_hand,
    "request: open again": column_of(
        ChangeRequest, "state", request_label, lambda rng, v: "rejected", state__in=["applied", "withdrawn"]
    ),
    "request: its reason": column_of(ChangeRequest, "reason", request_label, text),
    "request: who asked": column_of(ChangeRequest, "requested_by", request_label, text),
    "request: who ended it": column_of(
        ChangeRequest, "ended_by", request_label, text, state__in=["applied", "withdrawn"]
    ),
    "request: gone": _request_gone,
    "break-glass: its banner gone": row_gone(BreakGlass, glass_label),
    "break-glass: by somebody else": column_of(BreakGlass, "by_user_id", glass_label, text),
    "break-glass: its reason": column_of(BreakGlass, "reason", glass_label, text),
    "break-glass: looked at by hand": column_of(
        BreakGlass, "reviewed_at", lambda row: f"review {row.pk}", later, reviewed_at=None
    ),
    "invitation: its roles": column_of(
        Invitation, "roles", invitation_label, lambda rng, v: [*v, {"environment": "", "role": "admin"}]
    ),
    "invitation: whom it is for": column_of(Invitation, "invited", invitation_label, text),
    "invitation: its end": column_of(Invitation, "expires_at", invitation_label, later),
    "invitation: its link": column_of(
        Invitation, "token_sha256", invitation_label, lambda rng, v: other_hash(rng)
    ),
    "invitation: who invited": column_of(
        Invitation, "inviter_id", invitation_label, lambda rng, v: User.objects.order_by("pk")[0].pk
    ),
    "invitation: with which key": column_of(Invitation, "inviter_key", invitation_label, text),
    "invitation: its teams": column_of(Invitation, "teams", invitation_label, lambda rng, v: ["support"]),
    "invitation: unused again": column_of(
        Invitation, "accepted_at", invitation_label, lambda rng, v: None, accepted_at__isnull=False
    ),
    "invitation: gone": row_gone(Invitation, invitation_label),
    "invitation: one that nobody made": row_twice(Invitation, invitation_label, _another),
    "receiver: its address": column_of(Receiver, "address", receiver_label, text),
    "receiver: what it is told": column_of(
        Receiver, "environments", receiver_label, lambda rng, v: [text(rng, v)]
    ),
    "receiver: silenced": column_of(Receiver, "enabled", receiver_label, flipped),
    "receiver: gone": row_gone(Receiver, receiver_label),
    "receiver: one that nobody added": row_twice(Receiver, receiver_label, _another),
}
