"""Every write to who may do what. Each in one transaction with its audit entry."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import validate_slug
from django.db import IntegrityError, transaction

from controlplane.access import keys
from controlplane.access.models import Key, Membership, Role, Team
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, Conflict, InvalidInput, KeyLimited, NotFound, NotYourKey
from controlplane.core.names import hidden_character

MAX_OVERLAP = timedelta(days=7)  # how long a rotated key may go on beside its successor

# --- keys --------------------------------------------------------------------------------------------


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
) -> tuple[Key, str]:
    """Make a key; returns it with its text, which is shown this once and kept nowhere.

    `user` is the person that the key acts for. `scopes` are roles, for admin keys only; nobody hands out a
    role that they do not hold, and no key makes one that has more than itself: wider scopes, other workloads or
    environments, a longer life. `workloads` (names) limits the key; empty: all of the environment.
    """
    _refuse_bad_key(kind, environment, label, scopes, expires_at)
    if user is not None and actor.kind != "system" and actor.user_id != str(user.pk):
        raise NotYourKey(f"A key that acts for {user} is made by {user}: nobody else sees its text.")
    _refuse_more_than_held(actor, environment, scopes, workloads, expires_at)
    key_id, text = keys.new_key_text(kind, environment)
    key = Key(
        kind=kind,
        key_id=key_id,
        secret_sha256=keys.secret_hash(text),
        label=label,
        environment=environment,
        scopes=sorted(set(scopes)),
        workloads=sorted(set(workloads)),
        user=user,
        expires_at=expires_at,
    )
    with transaction.atomic():
        key.save(force_insert=True)
        log.record(
            actor=actor,
            action="key.issue",
            target=("key", key_id),
            environment=environment,
            after=_key_fields(key),
        )
    return key, text


def revoke_key(key_id: str, *, actor: Actor, reason: str) -> Key:
    """End a key now. To revoke it twice changes nothing and says nothing twice."""
    with transaction.atomic():
        key = _locked_key(key_id)
        if key.revoked_at is not None:
            return key
        before = _key_fields(key)
        key.revoked_at = clock.now()
        key.save(update_fields=["revoked_at"])
        log.record(
            actor=actor,
            action="key.revoke",
            target=("key", key_id),
            environment=key.environment,
            reason=reason,
            before=before,
            after=_key_fields(key),
        )
    return key


def rotate_key(key_id: str, *, actor: Actor, overlap: timedelta = timedelta(days=1)) -> tuple[Key, str]:
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
        successor, text = issue_key(
            old.kind,
            old.environment,
            old.label,
            actor=actor,
            user=old.user,
            scopes=old.scopes,
            workloads=old.workloads,
            expires_at=expires_at,
        )
        successor.rotated_from = old
        successor.save(update_fields=["rotated_from"])
        before = _key_fields(old)
        old.expires_at = min(now + overlap, old.expires_at or now + overlap)
        old.save(update_fields=["expires_at"])
        log.record(
            actor=actor,
            action="key.rotate",
            target=("key", key_id),
            environment=old.environment,
            before=before,
            after=_key_fields(old) | {"successor": successor.key_id},
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
    for scope in scopes:
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
        problems.append({"path": "label", "message": f"holds a character that cannot be seen ({hidden})"})
    if environment and not _is_slug(environment):
        problems.append({"path": "environment", "message": "must be an environment's name"})
    if kind == Key.Kind.ROUTER and not environment:
        problems.append({"path": "environment", "message": "a router key belongs to one environment"})
    if kind == Key.Kind.ROUTER and scopes:
        problems.append({"path": "scopes", "message": "a router key has none"})
    if kind == Key.Kind.ADMIN and (not scopes or not set(scopes) <= set(Role.values)):
        problems.append({"path": "scopes", "message": f"must be some of {', '.join(Role.values)}"})
    if expires_at is not None and expires_at <= clock.now():
        problems.append({"path": "expires_at", "message": "must lie ahead"})
    if problems:
        raise InvalidInput("The key cannot be issued.", problems)


def _locked_key(key_id: str) -> Key:
    key = Key.objects.select_for_update(of=("self",)).select_related("user").filter(key_id=key_id).first()
    if key is None:
        raise NotFound(f"There is no key {key_id}.")
    return key


def _key_fields(key: Key) -> dict[str, Any]:
    """A key as the audit log keeps it: never its secret, nor the secret's hash."""
    names = ("kind", "label", "environment", "scopes", "workloads", "user_id", "expires_at", "revoked_at")
    return {name: getattr(key, name) for name in names}


# --- people ------------------------------------------------------------------------------------------


def grant_role(user: User, role: str, environment: str, *, actor: Actor, reason: str = "") -> Membership:
    """Give a person a role in one environment, or (`""`) in every one. To grant it twice is a 409."""
    if role not in Role.values:
        raise InvalidInput(f"{role!r} is not a role; there are {', '.join(Role.values)}.")
    if environment and not _is_slug(environment):
        raise InvalidInput(f"{environment!r} is not an environment's name.")
    with transaction.atomic():
        try:
            with transaction.atomic():
                membership = Membership.objects.create(user=user, role=role, environment=environment)
        except IntegrityError:
            raise AlreadyExists(
                f"{user.get_username()} is {role} in {environment or 'every environment'} already."
            ) from None
        log.record(
            actor=actor,
            action="membership.grant",
            target=("user", str(user.pk)),
            environment=environment,
            reason=reason,
            after=_membership_fields(membership),
        )
    return membership


def withdraw_role(membership: Membership, *, actor: Actor, reason: str = "") -> None:
    """Take a role away; it counts from the next request on."""
    with transaction.atomic():
        before, user_id = _membership_fields(membership), str(membership.user_id)
        if not Membership.objects.filter(pk=membership.pk).delete()[0]:
            raise NotFound("This membership has ended already.")
        log.record(
            actor=actor,
            action="membership.withdraw",
            target=("user", user_id),
            environment=membership.environment,
            reason=reason,
            before=before,
        )


def create_team(name: str, *, actor: Actor, members: Sequence[User] = ()) -> Team:
    if not _is_slug(name) or len(name) > 64:
        raise InvalidInput("A team's name has 1 to 64 letters, digits, hyphens and underscores.")
    with transaction.atomic():
        try:
            with transaction.atomic():
                team = Team.objects.create(name=name)
        except IntegrityError:
            raise AlreadyExists(f"There is already a team called {name!r}.") from None
        team.members.set(members)
        log.record(actor=actor, action="team.create", target=("team", name), after=_team_fields(team))
    return team


def set_team_members(team: Team, members: Sequence[User], *, actor: Actor, reason: str = "") -> Team:
    """Replace a team's members. A person who is left out can no longer edit the team's workloads."""
    with transaction.atomic():
        team = Team.objects.select_for_update().get(pk=team.pk)
        before = _team_fields(team)
        team.members.set(members)
        log.record(
            actor=actor,
            action="team.set_members",
            target=("team", team.name),
            reason=reason,
            before=before,
            after=_team_fields(team),
        )
    return team


def people(usernames: Sequence[str]) -> list[User]:
    """The users of these names, or `InvalidInput` naming those that do not exist."""
    found = list(get_user_model().objects.filter(username__in=usernames))
    if unknown := sorted(set(usernames) - {user.get_username() for user in found}):
        raise InvalidInput(f"There is nobody called {', '.join(unknown)}.")
    return found


def _membership_fields(membership: Membership) -> dict[str, Any]:
    return {
        "user": membership.user.get_username(),
        "role": membership.role,
        "environment": membership.environment,
    }


def _team_fields(team: Team) -> dict[str, Any]:
    return {
        "name": team.name,
        "members": sorted(team.members.values_list(get_user_model().USERNAME_FIELD, flat=True)),
    }


def _is_slug(text: str) -> bool:
    try:
        validate_slug(text)
    except ValidationError:
        return False
    return True
