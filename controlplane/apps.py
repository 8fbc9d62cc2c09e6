"""Register the project as a Django app, so that its commands are found, and the console as the default admin site.
Pages then reach the site through `django.contrib.admin.site`, without importing the layers above them."""

import warnings

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin.apps import SimpleAdminConfig
from django.db.backends.signals import connection_created


class ControlplaneConfig(AppConfig):
    name = "controlplane"

    def ready(self) -> None:
        # Importing these registers them. `@shared_task` needs the Celery app to be loaded.
        from controlplane import celery  # noqa: F401
        from controlplane.core import logs, patience
        from controlplane.server import checks  # noqa: F401

        # WhiteNoise then serves the packages' files directly, so STATIC_ROOT need not exist.
        if settings.WHITENOISE_USE_FINDERS:
            warnings.filterwarnings("ignore", "No directory at", UserWarning)
        if settings.LOG_FORMAT == "json":
            logs.catch_the_rest()
        connection_created.connect(patience.limit)


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
