"""Writes to people's accounts: deactivate, activate, end sessions, remove a lost second factor."""

from collections.abc import Callable

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User

from controlplane.access.actions.accounts import person_fields
from controlplane.access.actions.admins import admins_by_role, hold_admins, keep_an_admin
from controlplane.access.actions.keys import held_keys, revoke_key
from controlplane.access.actions.sessions import end_sessions_of
from controlplane.access.models import Key, Role
from controlplane.access.permissions import require_role
from controlplane.audit import log
from controlplane.core import reasons
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, NotFound


def deactivate_person(user: User, *, actor: Actor, reason: str) -> User:
    """Deactivate an account. Its sessions and keys end with this transaction, and its approvals no longer count.

    The keys are revoked, so that they stay invalid if the account is activated again.
    """

    keys: list[Key] = []

    def close(locked: User) -> None:
        if not locked.is_active:
            raise Conflict(f"{locked} is already deactivated.")
        keep_an_admin(User.objects.exclude(pk=locked.pk))
        locked.is_active = False
        locked.save(update_fields=["is_active"])
        end_sessions_of(locked)
        keys.extend(held_keys(locked))  # before the first entry, which locks the head of the log

    def revoke_keys(locked: User) -> None:
        for key in keys:
            # Why is only for admins; a key's entries are for everybody with a role in its environment.
            revoke_key(key.key_id, actor=actor, reason="The account of its owner was deactivated.")

    return _changed(user, close, "user.deactivate", actor=actor, reason=reason, then=revoke_keys)


def activate_person(user: User, *, actor: Actor, reason: str) -> User:
    """Activate a deactivated account, with its remaining roles. It needs new keys."""

    def open_again(locked: User) -> None:
        if locked.is_active:
            raise Conflict(f"{locked} is already active.")
        locked.is_active = True
        locked.save(update_fields=["is_active"])

    return _changed(user, open_again, "user.activate", actor=actor, reason=reason)


def end_sessions(user: User, *, actor: Actor, reason: str) -> User:
    """End all sessions of a person, and sign-ins that wait for a second factor."""
    return _changed(user, end_sessions_of, "user.end_sessions", actor=actor, reason=reason)


def remove_second_factor(user: User, *, actor: Actor, reason: str) -> User:
    """Remove a lost second factor. The password alone is then enough until they set up another."""

    def remove(locked: User) -> None:
        if not Authenticator.objects.filter(user=locked).delete()[0]:
            raise Conflict(f"{locked} has no second factor.")
        end_sessions_of(locked)

    return _changed(user, remove, "second_factor.remove", actor=actor, reason=reason)


def withdraw_superuser(user: User, *, actor: Actor, reason: str) -> User:
    """Withdraw superuser rights, so that only the person's roles count."""

    def withdraw(locked: User) -> None:
        if not locked.is_superuser:
            raise Conflict(f"{locked} is not an administrator of the instance.")
        keep_an_admin(User.objects.exclude(pk=locked.pk) | admins_by_role())
        locked.is_superuser = False
        locked.save(update_fields=["is_superuser"])

    return _changed(user, withdraw, "user.withdraw_superuser", actor=actor, reason=reason)


def _changed(
    user: User,
    change: Callable[[User], None],
    action: str,
    *,
    actor: Actor,
    reason: str,
    then: Callable[[User], None] | None = None,
) -> User:
    """Make one change to the locked row, with its entry. It requires an admin of every environment, because it
    affects all."""
    with log.attempt(actor=actor, action=action, target=("user", str(user.pk)), reason=reason):
        require_role(actor, Role.ADMIN, "")
        reasons.demand(actor, reason, f"This changes what {user.get_username()} can do")
        hold_admins()
        # Again, because somebody may have withdrawn the role during the wait.
        require_role(actor, Role.ADMIN, "")
        locked = User.objects.select_for_update().filter(pk=user.pk).first()
        if locked is None:
            raise NotFound("There is no such person.")
        before = person_fields(locked)
        change(locked)
        log.record(
            actor=actor,
            action=action,
            target=("user", str(locked.pk)),
            reason=reason,
            before=before,
            after=person_fields(locked),
        )
        if then is not None:
            then(locked)
    return locked
