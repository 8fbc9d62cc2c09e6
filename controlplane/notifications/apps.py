"""Connects notifications to the audit log, Prometheus and the log's verification."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class NotificationsConfig(AppConfig):
    name = "controlplane.notifications"

    def ready(self) -> None:
        from controlplane.audit import checkpoints, log
        from controlplane.core import figures
        from controlplane.notifications import audited, outbox

        log.on_entry(outbox.tell_of_entry)
        checkpoints.on_checkpoint(outbox.tell_of_checkpoint)
        figures.register(audited.DeliveryFigures())
        audited.register()
        post_migrate.connect(_open_lost, sender=self)


def _open_lost(using: str, **kwargs: Any) -> None:
    from controlplane.notifications import outbox

    needed = {"audit_entry", "notifications_breakglass"}
    if using == "default" and needed <= set(connections[using].introspection.table_names()):
        outbox.open_lost()
