"""Sessions in the database (SESSION_ENGINE), with columns that say whose they are.

The person is inside the encoded data. Without the columns, ending somebody's sessions would decode everybody's, and
anybody can make sessions: a challenge for a passkey needs one.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from allauth.account.internal.stagekit import LOGIN_SESSION_KEY
from allauth.account.utils import url_str_to_user_pk
from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.backends import db

from controlplane.access.models import Session
from controlplane.access.sign_in import invited
from controlplane.core import clock

# For a passkey's challenge, a second factor, the way to the company's provider and back.
BEFORE_SIGN_IN = timedelta(minutes=30)


class SessionStore(db.SessionStore):
    @classmethod
    def get_model_class(cls) -> type[Session]:
        return Session

    def create_model_instance(self, data: Mapping[str, Any]) -> Session:
        row = cast(Session, super().create_model_instance(dict(data)))
        row.user_id, row.signed_in = _person(data)
        # An opened invitation is valid for as long as it says, and only a real link makes such a session.
        if not (row.signed_in or invited.SESSION_KEY in data):
            row.expire_date = min(row.expire_date, clock.now() + BEFORE_SIGN_IN)
        return row


def _person(data: Mapping[str, Any]) -> tuple[int | None, bool]:
    """Return whose session it is, and whether they have signed in. allauth keeps a sign-in that has not finished."""
    if SESSION_KEY in data:
        return int(data[SESSION_KEY]), True
    waiting = data.get(LOGIN_SESSION_KEY)
    user_pk = waiting.get("user_pk") if isinstance(waiting, dict) else None
    return (int(url_str_to_user_pk(user_pk)) if user_pk else None), False
