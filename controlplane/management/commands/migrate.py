"""`manage.py migrate`: Django's, for one process at a time and without time limits."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from controlplane.core import patience, tables

_LOCK = 0x6D696772  # our advisory lock


class Command(migrate.Command):
    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        with _alone(connection):
            if not options["prune"]:
                tables.refuse_newer()
            super().handle(*args, **options)


@contextmanager
def _alone(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Wait until no other process migrates the database. Two at once would create the same tables, and both fail."""
    if connection.vendor == "sqlite":
        with _lock_file() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        return
    patience.lift(connection)
    _ask(connection, "SELECT pg_advisory_lock(%s, 0)")
    try:
        yield
    finally:
        with suppress(Error):  # a lost connection has released it, and must not hide what was raised
            _ask(connection, "SELECT pg_advisory_unlock(%s, 0)")


def _lock_file() -> TextIO:
    try:
        path = settings.VAR_DIR / "migrating"
        path.touch(mode=0o600)
        return path.open("w")
    except OSError as error:
        raise CommandError(f"The instance's directory is not writable: {error}") from None


def _ask(connection: BaseDatabaseWrapper, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, [_LOCK])
