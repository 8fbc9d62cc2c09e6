"""The actor behind a change. Every write takes an `Actor`, keyword-only and without a default, so no change is
anonymous."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

Kind = Literal["user", "key", "router", "system", "visitor"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, a key, a router, the system, or a visitor who is not signed in, as recorded in the audit log.

    `id` is stable and unique within `kind`. `label` is for display, copied so that the entry outlives its subject.
    `user_id` is the person behind an admin key: four-eyes rules count people, not keys.
    """

    kind: Kind
    id: str
    label: str
    user_id: str | None = None

    @classmethod
    def of_user(cls, user: "AbstractBaseUser") -> "Actor":
        return cls("user", str(user.pk), user.get_username(), str(user.pk))

    def __str__(self) -> str:
        return f"{self.kind}:{self.label}"


SYSTEM = Actor("system", "pointsman", "Pointsman")
