"""The app: what the audit log calls, its figures for Prometheus, and what the log's verification compares."""

from django.apps import AppConfig


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
