"""The project as an app, for its commands; and the console as `django.contrib.admin.site`, so that a page
finds it without importing what is above."""

from django.apps import AppConfig
from django.contrib.admin.apps import SimpleAdminConfig


class ControlplaneConfig(AppConfig):
    name = "controlplane"

    def ready(self) -> None:
        from controlplane.server import checks  # noqa: F401 — registered by being imported


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
