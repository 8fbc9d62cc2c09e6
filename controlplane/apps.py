"""Makes `django.contrib.admin.site` the console, so that every page finds it without importing the pages above it."""

from django.contrib.admin.apps import SimpleAdminConfig


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
