"""Keep the last admin: somebody must remain who can grant roles."""

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from controlplane.access.models import Membership, Role
from controlplane.core.errors import LastAdmin


def hold_admins() -> None:
    """Lock all full administrators until the transaction ends. This must be the first lock taken.

    Two admins who remove each other at the same moment wait for each other here, so what each reads afterwards stays
    true.
    """
    list(_all_admins().select_for_update().order_by("pk").values_list("pk", flat=True))


def keep_an_admin(others: QuerySet[User]) -> None:
    """Raise `LastAdmin` unless one of the `others` is an active full administrator. Call it after `hold_admins`."""
    if not (others & _all_admins()).filter(is_active=True).exists():
        raise LastAdmin(
            "Nobody else is an active admin of every environment. Make somebody admin first, then do this."
        )


def admins_by_role() -> QuerySet[User]:
    held = Membership.objects.filter(role=Role.ADMIN, environment="")
    return User.objects.filter(pk__in=held.values("user_id"))


def _all_admins() -> QuerySet[User]:
    return User.objects.filter(Q(is_superuser=True) | Q(pk__in=admins_by_role().values("pk")))
