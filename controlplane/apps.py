"""The project as an app, for its commands; and the console as `django.contrib.admin.site`, so that a page
finds it without importing what is above."""

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"

    def ready(self) -> None:
        # Registered by being imported; of the Celery app it is what `@shared_task` finds.
        from controlplane import celery  # noqa: F401
        from controlplane.server import checks  # noqa: F401


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
