"""Authentication for the admin API: a person with a session, or a script with an admin key."""

from datetime import datetime, timedelta

from django.contrib.auth.models import AnonymousUser, User
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from controlplane.access.keys import check, parse_key
from controlplane.access.models import Key
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import KeyRevoked, Unauthenticated, WrongKeyKind

TOUCH_EVERY = timedelta(minutes=1)  # the precision of `last_used_at`; otherwise each request would be a write


class KeyAuthentication(BaseAuthentication):
    """Authenticates an admin key. `permissions` checks its roles for each action."""

    def authenticate(self, request: Request) -> tuple[User | AnonymousUser, Key] | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("This API needs `Authorization: Bearer <admin key>`, or a session.")
        key = admin_key(text.strip())
        return key.user or AnonymousUser(), key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="pointsman"'


def admin_key(text: str) -> Key:
    """Return the valid admin key with this text. Raises `Unauthenticated` or a subclass, or `WrongKeyKind`."""
    parsed = parse_key(text)
    keys = Key.objects.select_related("user")
    key = keys.filter(key_id=parsed.key_id).first() if parsed is not None else None
    now = clock.now()
    check(parsed, key, now)
    if key is None:  # for the type checker: `check` has raised in this case
        raise Unauthenticated("This key is not known.")
    if key.kind != Key.Kind.ADMIN:
        raise WrongKeyKind(
            "This is a router key; the admin API needs an admin key (pma_…).", caller=_actor(key)
        )
    if key.user is not None and not key.user.is_active:
        raise KeyRevoked(f"The account behind key {key.key_id} is no longer active.")
    stale = Q(last_used_at=None) | Q(last_used_at__lt=now - TOUCH_EVERY)
    if key.last_used_at is None or key.last_used_at < now - TOUCH_EVERY:
        note_used(Key.objects.filter(stale, pk=key.pk), now)
    return key


def note_used(keys: QuerySet[Key], at: datetime) -> list[int]:
    """Write when keys were last used, and return the primary keys of those written.

    A key that somebody is just changing is skipped: a change may wait for long, and no request or router for this.
    """
    with transaction.atomic():
        if connection.features.has_select_for_update_skip_locked:
            keys = keys.select_for_update(skip_locked=True, no_key=True)
        free = list(keys.order_by("pk").values_list("pk", flat=True))
        Key.objects.filter(pk__in=free).update(last_used_at=at)
    return free


def actor_of(request: Request) -> Actor:
    """Return the actor of an authenticated request. A key acts under its own name and counts as its person."""
    if isinstance(request.auth, Key):
        return _actor(request.auth)
    if request.user is None or not request.user.is_authenticated:
        raise Unauthenticated("Log in, or send an admin key as `Authorization: Bearer pma_…`.")
    return Actor.of_user(request.user)


def _actor(key: Key) -> Actor:
    return Actor("key", key.key_id, key.words, None if key.user_id is None else str(key.user_id))


__all__ = ["KeyAuthentication", "SessionAuthentication", "actor_of", "admin_key", "note_used"]
