"""Create, revoke and accept invitations. An invitation is a link that grants, once, what its inviter may grant."""

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction

from controlplane.access.actions.accounts import person_fields, save_new
from controlplane.access.actions.names import is_slug, refuse_reserved
from controlplane.access.actions.roles import record_role, team_fields
from controlplane.access.actions.second_person import refuse_alone, takes_two
from controlplane.access.models import Invitation, Key, Membership, Role, Team
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import clock, reasons
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Forbidden, InvalidInput, InvitationEnded, NotFound
from controlplane.core.names import hidden_character

LIVES = timedelta(days=3)
LONGEST = timedelta(days=30)
# Names that look alike would let one person pass for another on an approval page.
USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)


def invite(
    invited: str,
    *,
    actor: Actor,
    reason: str,
    email: str = "",
    roles: Sequence[Mapping[str, str]] = (),
    teams: Sequence[str] = (),
    lives: timedelta = LIVES,
) -> tuple[Invitation, str]:
    """Create an invitation. Return it with its link's token, which is shown only once and not stored.

    `roles` are `{"environment", "role"}`, where an empty environment means every one. The inviter must be an admin of
    each.
    """
    _refuse_bad_invitation(invited, email, roles, teams, lives)
    refuse_reserved(invited=invited)
    reasons.demand(actor, reason, "This invites somebody")
    invitation, token = Invitation(), secrets.token_urlsafe(32)
    with log.attempt(actor=actor, action="invitation.create", target=_target(invitation), reason=reason):
        _require_right_to_give(actor, roles, teams)
        for role in roles:
            refuse_alone(role["role"], role.get("environment", ""), actor=actor)
        now, key = clock.now(), _key_of(actor)
        invitation.token_sha256 = token_hash(token)
        invitation.invited, invitation.email = invited, email
        given = sorted({(role.get("environment", ""), role["role"]) for role in roles})
        invitation.roles = [{"environment": environment, "role": role} for environment, role in given]
        invitation.teams = sorted(set(teams))
        invitation.inviter_id = None if actor.user_id is None else int(actor.user_id)
        invitation.inviter_key, invitation.inviter_label = key.key_id if key else "", actor.label
        invitation.created_at, invitation.expires_at = now, now + lives
        if key and key.expires_at:  # a key grants nothing that outlives it
            invitation.expires_at = min(invitation.expires_at, key.expires_at)
        invitation.save(force_insert=True)
        log.record(
            actor=actor,
            action="invitation.create",
            target=_target(invitation),
            reason=reason,
            after=invitation_fields(invitation),
        )
    return invitation, token


def revoke_invitation(pk: UUID, *, actor: Actor, reason: str) -> Invitation:
    """Revoke an unused invitation. Anybody who could have created it may do so."""
    with log.attempt(actor=actor, action="invitation.revoke", target=("invitation", str(pk)), reason=reason):
        invitation = Invitation.objects.select_for_update(of=("self",)).filter(pk=pk).first()
        if invitation is None:
            raise NotFound("There is no such invitation.")
        _require_right_to_give(actor, invitation.roles, invitation.teams)
        refuse_ended(invitation)
        before = invitation_fields(invitation)
        invitation.revoked_at = clock.now()
        invitation.save(update_fields=["revoked_at"])
        log.record(
            actor=actor,
            action="invitation.revoke",
            target=_target(invitation),
            reason=reason,
            before=before,
            after=invitation_fields(invitation),
        )
    return invitation


def accept_with_password(token_sha256: str, *, username: str, password: str, full_name: str = "") -> User:
    """Create the account of an invited person, with their own password."""
    user = User(username=username, first_name=full_name[:150])
    _refuse_bad_account(user, password)
    user.set_password(password)  # before the transaction: hashing takes long, and SQLite has one writer
    return accept_as(token_sha256, user)


def accept_as(token_sha256: str, user: User) -> User:
    """Grant the invitation's contents to `user`: a new account, or somebody who is logged in.

    Raises `InvitationEnded` if it was used or revoked, has expired, or its inviter may no longer grant all of it. The
    inviter's rights and the second person are checked again, as for an invitation created now.
    """
    with transaction.atomic():
        found = Invitation.objects.select_for_update(of=("self",)).filter(token_sha256=token_sha256)
        invitation = found.select_related("inviter").first()
        if invitation is None:
            raise InvitationEnded("This invitation does not exist. Ask for a new link.")
        refuse_ended(invitation)
        _refuse_lost_right(invitation)
        before, is_new = invitation_fields(invitation), user.pk is None
        if is_new:
            user.email = user.email or invitation.email
            save_new(user)
        # All rows before the first entry: whoever holds the head of the log must not wait for a row.
        roles, teams = _given_roles(invitation, user), _joined_teams(invitation, user)
        invitation.accepted_at, invitation.accepted_by = clock.now(), user
        invitation.save(update_fields=["accepted_at", "accepted_by"])
        if is_new:
            _record_creation(user, invitation)
        _record_given(roles, teams, actor=Actor.of_user(user), reason=_why(invitation))
        log.record(
            actor=Actor.of_user(user),
            action="invitation.accept",
            target=_target(invitation),
            before=before,
            after=invitation_fields(invitation),
        )
    return user


def refuse_ended(invitation: Invitation) -> None:
    if invitation.accepted_at is not None:
        raise InvitationEnded("This invitation has already been used. Log in, or ask for a new link.")
    if invitation.revoked_at is not None:
        raise InvitationEnded("This invitation was revoked. Ask for a new link.")
    if invitation.expires_at <= clock.now():
        raise InvitationEnded("This invitation has expired. Ask for a new link.")


def token_hash(token: str) -> str:
    return hashlib.sha256(f"pointsman.invitation {token}".encode()).hexdigest()


def invitation_fields(invitation: Invitation) -> dict[str, Any]:
    """Return an invitation's fields for the audit log, with a fingerprint instead of the token."""
    names = (
        "invited",
        "email",
        "roles",
        "teams",
        "expires_at",
        "revoked_at",
        "accepted_at",
        "accepted_by_id",
        "inviter_id",
        "inviter_key",
    )
    fingerprint = hashlib.sha256(f"pointsman.invitation {invitation.token_sha256}".encode()).hexdigest()[:16]
    return {name: getattr(invitation, name) for name in names} | {"fingerprint": fingerprint}


def _target(invitation: Invitation) -> tuple[str, str]:
    return ("invitation", str(invitation.pk))


def _require_right_to_give(actor: Actor, roles: Sequence[Mapping[str, str]], teams: Sequence[str]) -> None:
    for role in roles:
        require_role(actor, Role.ADMIN, role.get("environment", ""))
    if teams:
        require_role(actor, Role.ADMIN, "")


def _refuse_lost_right(invitation: Invitation) -> None:
    """Refuse an invitation whose inviter may no longer grant all of it alone. Otherwise one created before four eyes
    were required, or before anybody else could approve, would be an approver in reserve."""
    inviter = _inviter(invitation)
    try:
        _require_right_to_give(inviter, invitation.roles, invitation.teams)
    except Forbidden:
        raise InvitationEnded(
            f"{invitation.inviter_label}, who invited you, may no longer give these roles. Ask for a new link."
        ) from None
    for role in invitation.roles:
        if takes_two(role["role"], role["environment"], actor=inviter):
            where = role["environment"] or "every environment"
            raise InvitationEnded(
                f"Making somebody {role['role']} in {where} now needs a second person. Ask for a new link "
                "without this role, and request the role once you have an account."
            )


def _inviter(invitation: Invitation) -> Actor:
    """Return the current inviter. A key that has ended can no longer grant anything."""
    if invitation.inviter_key:
        key = Key.objects.select_related("user").filter(key_id=invitation.inviter_key).first()
        if key is None or key.revoked_at or (key.expires_at and key.expires_at <= clock.now()):
            raise InvitationEnded(
                "The key that created this invitation has expired or was revoked. Ask for a new link."
            )
        return Actor("key", key.key_id, key.words, None if key.user_id is None else str(key.user_id))
    if invitation.inviter is not None:
        return Actor.of_user(invitation.inviter)
    if invitation.inviter_label != SYSTEM.label:
        # Created with a key without a person, by a version that did not record which.
        raise InvitationEnded("This invitation's inviter no longer exists. Ask for a new link.")
    return SYSTEM


def _key_of(actor: Actor) -> Key | None:
    return Key.objects.filter(key_id=actor.id).first() if actor.kind == "key" else None


def _record_creation(user: User, invitation: Invitation) -> None:
    log.record(
        actor=Actor.of_user(user),
        action="user.create",
        target=("user", str(user.pk)),
        reason=_why(invitation),
        after=person_fields(user),
    )


def _given_roles(invitation: Invitation, user: User) -> list[Membership]:
    """Insert the roles that the user does not hold yet, and return them."""
    found = [Membership.objects.get_or_create(user=user, **role) for role in invitation.roles]
    return [membership for membership, is_new in found if is_new]


def _joined_teams(invitation: Invitation, user: User) -> list[tuple[Team, dict[str, Any]]]:
    """Add the user to the teams. Return each with its fields before."""
    teams = list(Team.objects.select_for_update().filter(name__in=invitation.teams).order_by("name"))
    before = [team_fields(team) for team in teams]
    for team in teams:
        team.members.add(user)
    return list(zip(teams, before, strict=True))


def _record_given(
    roles: Sequence[Membership],
    teams: Sequence[tuple[Team, dict[str, Any]]],
    *,
    actor: Actor,
    reason: str,
) -> None:
    for membership in roles:
        record_role(membership, actor=actor, reason=reason)
    for team, before in teams:
        log.record(
            actor=actor,
            action="team.join",
            target=("team", team.name),
            reason=reason,
            before=before,
            after=team_fields(team),
        )


def _why(invitation: Invitation) -> str:
    return f"{invitation.inviter_label} invited them (invitation {invitation.pk})."


def _refuse_bad_invitation(
    invited: str, email: str, roles: Sequence[Mapping[str, str]], teams: Sequence[str], lives: timedelta
) -> None:
    problems = []
    if not invited.strip() or len(invited) > 120 or hidden_character(invited):
        problems.append(
            {"path": "invited", "message": "must name the person, in 1 to 120 visible characters"}
        )
    if email and not _is_email(email):
        problems.append({"path": "email", "message": "is not a valid address"})
    if not roles:
        problems.append({"path": "roles", "message": "give at least one role"})
    for number, role in enumerate(roles):
        if role.get("role") not in Role.values:
            problems.append(
                {"path": f"roles/{number}/role", "message": f"must be one of {', '.join(Role.values)}"}
            )
        if (environment := role.get("environment", "")) and not is_slug(environment):
            problems.append(
                {"path": f"roles/{number}/environment", "message": "must be an environment's name"}
            )
    known = set(Team.objects.filter(name__in=list(teams)).values_list("name", flat=True))
    problems += [{"path": "teams", "message": f"there is no team {name}"} for name in set(teams) - known]
    if not timedelta(minutes=5) <= lives <= LONGEST:
        problems.append({"path": "days", "message": "must be between 5 minutes and 30 days"})
    if problems:
        raise InvalidInput("The invitation is not valid.", problems)


def _is_email(text: str) -> bool:
    try:
        validate_email(text)
    except ValidationError:
        return False
    return len(text) <= 254


def refuse_bad_username(username: str) -> None:
    """Raise `InvalidInput` if this cannot be a user name."""
    if problems := _problems_of_username(username):
        raise InvalidInput("The account cannot be created.", problems)
    refuse_reserved(username=username)


def _problems_of_username(username: str) -> list[dict[str, str]]:
    if USERNAME.fullmatch(username):
        return []
    return [{"path": "username", "message": "1 to 64 letters, digits and . _ @ + -, a letter or digit first"}]


def _refuse_bad_account(user: User, password: str) -> None:
    problems = _problems_of_username(user.username)
    if hidden_character(user.first_name):
        problems.append({"path": "full_name", "message": "contains an invisible character"})
    try:
        validate_password(password, user)
    except ValidationError as error:
        problems += [
            {"path": "password", "message": message.replace("the first name", "your name")}
            for message in error.messages
        ]
    if problems:
        raise InvalidInput("The account cannot be created.", problems)
    refuse_reserved(username=user.username, full_name=user.first_name)
