"""End the sessions of a person, also those of a sign-in that waits for its second factor.

Whose a session is, is stored inside it, so these functions read each live one; there are few.
"""

from collections.abc import Mapping
from typing import Any

from allauth.account.internal.stagekit import LOGIN_SESSION_KEY
from allauth.account.utils import user_pk_to_url_str
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session

from controlplane.core import clock


def end_sessions_of(user: User) -> None:
    """Delete the person's sessions and waiting sign-ins."""
    _delete(user, sessions=True)


def end_waiting_sign_ins_of(user: User) -> None:
    """Delete the sign-ins that wait for a second factor: the password that began them may be known to somebody else.

    A new password ends sessions by itself, because each contains a hash of the password.
    """
    _delete(user, sessions=False)


def _delete(user: User, *, sessions: bool) -> None:
    live = Session.objects.filter(expire_date__gt=clock.now())
    decoded = ((row.pk, row.get_decoded()) for row in live.iterator())
    own = [pk for pk, kept in decoded if _waits(kept, user) or (sessions and _is_of(kept, user))]
    Session.objects.filter(pk__in=own).delete()


def _is_of(kept: Mapping[str, Any], user: User) -> bool:
    return kept.get(SESSION_KEY) == str(user.pk)


def _waits(kept: Mapping[str, Any], user: User) -> bool:
    """Return whether it is a sign-in of this person that has not finished. allauth stores the id in base 36."""
    waiting = kept.get(LOGIN_SESSION_KEY)
    return (
        SESSION_KEY not in kept
        and isinstance(waiting, dict)
        and waiting.get("user_pk") == user_pk_to_url_str(user)
    )
