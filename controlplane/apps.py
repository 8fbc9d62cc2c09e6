"""Makes `django.contrib.admin.site` the console, so that a page finds it without importing what is above."""

from django.contrib.admin.apps import SimpleAdminConfig


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
