"""Register the project as a Django app, so that its commands are found, and the console as the default admin site.
Pages then reach the site through `django.contrib.admin.site`, without importing the layers above them."""

import warnings
from functools import partial
from typing import Any, cast

from django.apps import AppConfig
from django.conf import settings
from django.contrib.admin.apps import SimpleAdminConfig
from django.db import connections
from django.db.backends.signals import connection_created
from django.db.models.signals import pre_migrate


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
        pre_migrate.connect(_lift_limits)


def _lift_limits(sender: Any, using: str, **kwargs: Any) -> None:
    """Let a migration run and wait for locks without a time limit."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0"
            )
        cast(Any, connection.connection).wait = partial(
            type(connection.connection).wait, connection.connection
        )


class ConsoleConfig(SimpleAdminConfig):
    default_site = "controlplane.console.ConsoleSite"
