"""Writes to the keys of machines."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from controlplane.access import keys
from controlplane.access.actions.names import is_slug
from controlplane.access.models import AGENT, AGENT_ROLES, SCOPES, Key, Role
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, InvalidInput, KeyLimited, NotFound, NotYourKey
from controlplane.core.names import hidden_character

MAX_OVERLAP = timedelta(days=7)  # how long a rotated key may go on beside its successor


def issue_key(
    kind: str,
    environment: str,
    label: str,
    *,
    actor: Actor,
    user: User | None = None,
    scopes: Sequence[str] = (),
    workloads: Sequence[str] = (),
    expires_at: datetime | None = None,
    reason: str = "",
) -> tuple[Key, str]:
    """Make a key; returns it with its text, which is shown this once and kept nowhere.

    `user` is the person that the key acts for. `scopes` are roles or `agent`, for admin keys only; nobody hands out a
    role that they do not hold, and no key makes one that has more than itself: wider scopes, other workloads or
    environments, a longer life. `workloads` (names) limits the key; empty: all of the environment.
    """
    with transaction.atomic():
        key, text = _saved(
            kind,
            environment,
            label,
            actor=actor,
            user=user,
            scopes=scopes,
            workloads=workloads,
            expires_at=expires_at,
        )
        log.record(
            actor=actor,
            action="key.issue",
            target=("key", key.key_id),
            environment=environment,
            reason=reason,
            after=key_fields(key),
        )
    return key, text


def _saved(
    kind: str,
    environment: str,
    label: str,
    *,
    actor: Actor,
    user: User | None,
    scopes: Sequence[str],
    workloads: Sequence[str],
    expires_at: datetime | None,
    rotated_from: Key | None = None,
) -> tuple[Key, str]:
    """The new row and its text; who calls this writes the audit entry."""
    _refuse_bad_key(kind, environment, label, scopes, expires_at)
    if user is not None and actor.kind != "system" and actor.user_id != str(user.pk):
        raise NotYourKey(f"A key that acts for {user} is made by {user}: nobody else sees its text.")
    _refuse_more_than_held(actor, environment, scopes, workloads, expires_at)
    key_id, text = keys.new_key_text(kind, environment)
    key = Key.objects.create(
        kind=kind,
        key_id=key_id,
        secret_sha256=keys.secret_hash(text),
        label=label,
        environment=environment,
        scopes=sorted(set(scopes)),
        workloads=sorted(set(workloads)),
        user=user,
        expires_at=expires_at,
        rotated_from=rotated_from,
    )
    return key, text


def revoke_key(key_id: str, *, actor: Actor, reason: str) -> Key:
    """End a key now. To revoke it twice changes nothing and says nothing twice."""
    with transaction.atomic():
        key = _locked_key(key_id)
        if key.revoked_at is not None:
            return key
        before = key_fields(key)
        key.revoked_at = clock.now()
        key.save(update_fields=["revoked_at"])
        log.record(
            actor=actor,
            action="key.revoke",
            target=("key", key_id),
            environment=key.environment,
            reason=reason,
            before=before,
            after=key_fields(key),
        )
    return key


def rotate_key(
    key_id: str, *, actor: Actor, overlap: timedelta = timedelta(days=1), reason: str = ""
) -> tuple[Key, str]:
    """A successor with the same rights; the old key goes on for `overlap`, at most 7 days, then expires.

    Only the person that the key acts for gets a new text. Anybody else would act as that person from then on, and
    could approve their own change with it.
    """
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidInput("The overlap of a rotation is between nothing and 7 days.")
    with transaction.atomic():
        old = _locked_key(key_id)
        if old.user_id is not None and actor.user_id != str(old.user_id):
            raise NotYourKey(
                f"Key {key_id} acts for {old.user}: only they can rotate it and see its new text. You can revoke it."
            )
        now = clock.now()
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise Conflict(f"Key {key_id} has ended; issue a new one.")
        if Key.objects.filter(rotated_from=old, revoked_at=None).exists():
            raise Conflict(f"Key {key_id} was rotated before: rotate its successor, or revoke that first.")
        # A lifetime goes on as long as before: a key of 90 days is followed by one of 90 days.
        expires_at = old.expires_at and now + (old.expires_at - old.created_at)
        if (limit := _life_of(actor)) is not None:
            expires_at = min(limit, expires_at or limit)
        successor, text = _saved(
            old.kind,
            old.environment,
            old.label,
            actor=actor,
            user=old.user,
            scopes=old.scopes,
            workloads=old.workloads,
            expires_at=expires_at,
            rotated_from=old,
        )
        before = key_fields(old)
        old.expires_at = min(now + overlap, old.expires_at or now + overlap)
        old.save(update_fields=["expires_at"])
        log.record(
            actor=actor,
            action="key.rotate",
            target=("key", key_id),
            environment=old.environment,
            reason=reason,
            before=before,
            after=key_fields(old) | {"successor": {"key_id": successor.key_id, **key_fields(successor)}},
        )
    return successor, text


def _refuse_more_than_held(
    actor: Actor,
    environment: str,
    scopes: Sequence[str],
    workloads: Sequence[str],
    expires_at: datetime | None,
) -> None:
    reached: Sequence[str | None] = workloads or [None]
    for scope in _roles_asked_of(actor, scopes):
        for workload in reached:
            require_role(actor, scope, environment, workload=workload)
    key = Key.objects.filter(key_id=actor.id).first() if actor.kind == "key" else None
    if key is not None and key.workloads and not (workloads and set(workloads) <= set(key.workloads)):
        raise KeyLimited(
            f"This key is limited to {', '.join(key.workloads)}: name some of these for the new one."
        )
    limit = _life_of(actor)
    if limit is not None and (expires_at is None or expires_at > limit):
        raise KeyLimited(f"This key ends at {limit:%Y-%m-%d %H:%M} UTC; it makes no key that lives longer.")


def _roles_asked_of(actor: Actor, scopes: Sequence[str]) -> Sequence[str]:
    """The roles that one must hold to make a key of these scopes.

    An agent's key has what its person has of three roles, so a person needs any role for it. A key needs all three:
    else one that may only see would make one that proposes in the name of the same person.
    """
    if AGENT not in scopes:
        return scopes
    return sorted(AGENT_ROLES) if actor.kind == "key" else [Role.VIEWER]


def _life_of(actor: Actor) -> datetime | None:
    """When the acting key expires; None for one without an end, and for people."""
    if actor.kind != "key":
        return None
    return Key.objects.filter(key_id=actor.id).values_list("expires_at", flat=True).first()


def _refuse_bad_key(
    kind: str, environment: str, label: str, scopes: Sequence[str], expires_at: datetime | None
) -> None:
    problems = []
    if kind not in Key.Kind.values:
        problems.append({"path": "kind", "message": "must be router or admin"})
    if not label.strip() or len(label) > 120:
        problems.append({"path": "label", "message": "must say what the key is for, in 1 to 120 characters"})
    if hidden := hidden_character(label):
        problems.append({"path": "label", "message": f"contains an invisible character ({hidden})"})
    if environment and not is_slug(environment):
        problems.append({"path": "environment", "message": "must be an environment's name"})
    if kind == Key.Kind.ROUTER and not environment:
        problems.append({"path": "environment", "message": "a router key belongs to one environment"})
    if kind == Key.Kind.ROUTER and scopes:
        problems.append({"path": "scopes", "message": "a router key has none"})
    known = [scope for scope, _ in SCOPES]
    if kind == Key.Kind.ADMIN and (not scopes or not set(scopes) <= set(known)):
        problems.append({"path": "scopes", "message": f"must be some of {', '.join(known)}"})
    if AGENT in scopes and set(scopes) != {AGENT}:
        problems.append(
            {"path": "scopes", "message": "`agent` stands alone: another scope would undo its limits"}
        )
    if expires_at is not None and expires_at <= clock.now():
        problems.append({"path": "expires_at", "message": "must lie ahead"})
    if problems:
        raise InvalidInput("The key cannot be issued.", problems)


def _locked_key(key_id: str) -> Key:
    key = Key.objects.select_for_update(of=("self",)).select_related("user").filter(key_id=key_id).first()
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def key_fields(key: Key) -> dict[str, Any]:
    """A key as the audit log keeps it: never its secret, nor the secret's hash, but what shows that it is the same."""
    names = ("kind", "label", "environment", "scopes", "workloads", "user_id", "expires_at", "revoked_at")
    fingerprint = hashlib.sha256(f"pointsman.key {key.secret_sha256}".encode()).hexdigest()[:16]
    return {name: getattr(key, name) for name in names} | {"fingerprint": fingerprint}
