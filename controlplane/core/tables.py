"""Whether the database's tables are those that this code expects."""

from collections.abc import Callable

from django.apps import apps
from django.core.management.base import CommandError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from controlplane.core.program import command
from pointsman.plurals import counted

_OURS = ("controlplane", "policies_app", "rollout_app")


def unfit() -> str:
    """Return why this code must not use the database, in a sentence, or "" if it may. Raises `DatabaseError`."""
    executor = MigrationExecutor(connection)
    if newer := _newer(executor.loader):
        return newer
    left = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not left:
        return ""
    missing = counted(len(left), "migration has", "migrations have")
    return f"The database is not up to date: {missing} not been applied. Run `{command('migrate')}` first."


def refuse_unfit() -> None:
    """Raise `CommandError` if this code must not use the database: one sentence instead of a traceback for each thread.

    An unreachable database does not prevent the start: every process waits for it.
    """
    _refuse(unfit)


def refuse_newer() -> None:
    """As `refuse_unfit`, for `migrate`, which applies what is missing."""
    _refuse(lambda: _newer(MigrationLoader(connection)))


def _refuse(reason: Callable[[], str]) -> None:
    try:
        why = reason()
    except DatabaseError:
        return
    if why:
        raise CommandError(why)


def _newer(loader: MigrationLoader) -> str:
    """Return a sentence if a newer version has migrated the database: its tables have columns that this code does not
    fill, and rules that it does not know."""
    known = set(loader.disk_migrations)
    known |= {old for migration in loader.disk_migrations.values() for old in migration.replaces}
    ours = {config.label for config in apps.get_app_configs() if config.name.partition(".")[0] in _OURS}
    unknown = sorted(key for key in loader.applied_migrations if key[0] in ours and key not in known)
    if not unknown:
        return ""
    names = ", ".join(f"{app}.{name}" for app, name in unknown)
    return f"This database was migrated by a newer version ({names}). Run that version or a newer one."
