"""Writes to API keys.

Each locks the person, then the key, and the head of the audit log last, as in `people`. With another order, two of
them could wait for each other.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet

from controlplane.access import keys
from controlplane.access.actions.names import is_slug, refuse_reserved
from controlplane.access.actions.places import refuse_unknown
from controlplane.access.models import AGENT, AGENT_ROLES, SCOPES, Key, Role
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, InvalidInput, KeyLimited, NotFound, NotYourKey
from controlplane.core.names import hidden_character
from controlplane.core.rotation import refuse_overlap


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
    known_only: bool = False,
) -> tuple[Key, str]:
    """Create a key. Return it with its text, which is shown only once and not stored.

    `user` is the person that the key acts for. `scopes` are roles or `agent`, for admin keys only. Nobody can give a
    key a role that they do not hold, and no key can create one with more rights: wider scopes, other workloads or
    environments, a longer life. `workloads` (names) limits the key; empty means all of the environment. With
    `known_only`, the environment and workloads must exist.
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
        if known_only:  # after the check of rights, so that nobody can guess names
            refuse_unknown(environment, workloads)
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
    """Create the row and its text. The caller writes the audit entry."""
    _refuse_bad_key(kind, environment, label, scopes, expires_at)
    if rotated_from is None:  # a key that has such a label already can still be rotated
        refuse_reserved(label=label)
    if user is not None and actor.kind != "system" and actor.user_id != str(user.pk):
        raise NotYourKey(f"Only {user} can create a key that acts for {user}, and see its text.")
    if user is not None:
        _hold_person(user)
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
    """Revoke a key. Revoking it twice changes nothing and adds no entry."""
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
    """Create a successor with the same rights. The old key stays valid for `overlap`, at most 7 days.

    Only the person that the key acts for may do this. Anybody else could act as that person with the new text, and so
    approve their own change.
    """
    refuse_overlap(overlap)
    with transaction.atomic():
        old, now = _locked_own_key(key_id, actor), clock.now()
        if old.revoked_at is not None or (old.expires_at is not None and old.expires_at <= now):
            raise Conflict(f"Key {key_id} has expired or was revoked; issue a new one.")
        if Key.objects.filter(rotated_from=old, revoked_at=None).exists():
            raise Conflict(f"Key {key_id} was already rotated: rotate its successor, or revoke that first.")
        expires_at = _as_long(old, now)
        if (limit := _expiry_of(actor)) is not None:
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


def _as_long(old: Key, now: datetime) -> datetime | None:
    """Return when a successor expires: a key of 90 days is followed by one of 90 days. None: never.

    A key that was rotated before expires at the end of the overlap; its life is then that of its earlier successors,
    of which some may have been rotated, too.
    """
    line, lives = [old], []
    for key in line:  # it grows
        line += key.successors.all()
        lives.append(None if key.expires_at is None else key.expires_at - key.created_at)
    known = [life for life in lives if life is not None]
    if len(known) < len(lives):
        return None
    # `expires_at` may be the last day that there is.
    return now + min(max(known), datetime.max.replace(tzinfo=UTC) - now)


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
            f"This key is limited to {', '.join(key.workloads)}: choose from these for the new one."
        )
    limit = _expiry_of(actor)
    if limit is not None and (expires_at is None or expires_at > limit):
        raise KeyLimited(
            f"This key expires at {limit:%Y-%m-%d %H:%M} UTC; it cannot create a key that lives longer."
        )


def _roles_asked_of(actor: Actor, scopes: Sequence[str]) -> Sequence[str]:
    """Return the roles that are needed to create a key with these scopes.

    An agent's key has those of three roles that its person holds, so a person needs only one role of any kind. A key
    needs all three: otherwise a key that may only read could create one that proposes for the same person.
    """
    if AGENT not in scopes:
        return scopes
    return sorted(AGENT_ROLES) if actor.kind == "key" else [Role.VIEWER]


def _expiry_of(actor: Actor) -> datetime | None:
    """Return when the acting key expires; None for a key without an expiry, and for people."""
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
        problems.append({"path": "scopes", "message": f"must be one or more of {', '.join(known)}"})
    if AGENT in scopes and set(scopes) != {AGENT}:
        problems.append(
            {"path": "scopes", "message": "`agent` must be the only scope: another one would undo its limits"}
        )
    if expires_at is not None and expires_at <= clock.now():
        problems.append({"path": "expires_at", "message": "must be in the future"})
    if problems:
        raise InvalidInput("The key cannot be issued.", problems)


def _locked_own_key(key_id: str, actor: Actor) -> Key:
    """Lock a key that this actor may rotate, and first its person."""
    key = _existing(Key.objects.select_related("user"), key_id)
    if key.user is not None:
        if actor.user_id != str(key.user_id):
            raise NotYourKey(
                f"Key {key_id} acts for {key.user}: only they can rotate it and see its new text. You can revoke it."
            )
        _hold_person(key.user)
    return _locked_key(key_id)


def held_keys(user: User) -> list[Key]:
    """Return the person's keys that are not revoked, locked until the transaction ends. The person must be locked."""
    return list(Key.objects.select_for_update().filter(user=user, revoked_at=None).order_by("pk"))


def _hold_person(user: User) -> None:
    """Keep a person from being deactivated until the transaction ends. Raises `Conflict` if they were.

    Otherwise a key made at the same moment would stay, and be valid once the account is activated again.
    """
    held = User.objects.select_for_update(no_key=True).filter(pk=user.pk, is_active=True)
    if not held.values_list("pk", flat=True)[:1]:
        raise Conflict(f"{user} is deactivated, so no key can act for them.")


def _locked_key(key_id: str) -> Key:
    return _existing(Key.objects.select_for_update(of=("self",)).select_related("user"), key_id)


def _existing(keys: QuerySet[Key], key_id: str) -> Key:
    key = keys.filter(key_id=key_id).first()
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def key_fields(key: Key) -> dict[str, Any]:
    """Return a key's fields for the audit log, with a fingerprint instead of the secret or its hash."""
    names = ("kind", "label", "environment", "scopes", "workloads", "user_id", "expires_at", "revoked_at")
    fingerprint = hashlib.sha256(f"pointsman.key {key.secret_sha256}".encode()).hexdigest()[:16]
    return {name: getattr(key, name) for name in names} | {"fingerprint": fingerprint}
