from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class AccessConfig(AppConfig):
    name = "controlplane.access"

    def ready(self) -> None:
        from controlplane.access import audited
        from controlplane.web import openapi  # noqa: F401 — registered by being imported

        audited.register()
        post_migrate.connect(_take_stock, sender=self)


def _take_stock(using: str, **kwargs: Any) -> None:
    """After an upgrade, record accounts that older entries do not describe completely."""
    from django.db import connections

    from controlplane.access import actions

    needed = {"auth_user", "audit_entry", "mfa_authenticator", "socialaccount_socialaccount"}
    if using == "default" and needed <= set(connections[using].introspection.table_names()):
        actions.take_stock()
