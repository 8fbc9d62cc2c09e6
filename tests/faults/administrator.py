"""Causes faults of the database through a connection of its own that bypasses every proxy."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
from django.db import connection

from controlplane.audit.models import Head
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from policies_app.models import Environment
from tests.support.plane import process_environment

KILL_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s AND pid <> pg_backend_pid()"
)
RETRIES = 100  # a tenth of a second apart, because the whole server may have failed


class Administrator:
    """Use as `with Administrator() as administrator`.

    On PostgreSQL, it creates a role without superuser privileges for the installation's processes, because superusers
    are exempt from the connection limit.
    """

    def __init__(self) -> None:
        self.url = process_environment()["DATABASE_URL"]
        self.on_postgres = connection.vendor == "postgresql"
        self.role = urlsplit(self.url).username or ""
        self._database = f'"{connection.settings_dict["NAME"]}"'

    def __enter__(self) -> Self:
        if self.on_postgres:
            with self._connected() as it:
                (superuser,) = it.execute(
                    "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
                ).fetchone() or (False,)
                if superuser:
                    self._create_role(it)
        return self

    def _create_role(self, it: "psycopg.Connection[Any]") -> None:
        self.role = f"pointsman_{time.time_ns()}"
        for statement in (
            f"CREATE ROLE {self.role} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {self.role}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {self.role}",
        ):
            it.execute(statement)

    def __exit__(self, *_: object) -> None:
        if self.on_postgres and self.role.startswith("pointsman_"):
            with self._connected() as it:
                it.execute(KILL_SESSIONS, [self.role])
                it.execute(f"REASSIGN OWNED BY {self.role} TO CURRENT_USER")
                it.execute(f"DROP OWNED BY {self.role}")
                it.execute(f"DROP ROLE {self.role}")

    @contextmanager
    def _connected(self) -> "Iterator[psycopg.Connection[Any]]":
        for left in reversed(range(RETRIES)):
            try:
                it = psycopg.connect(self.url, autocommit=True, connect_timeout=5)
                break
            except psycopg.OperationalError:
                if not left:
                    raise
                time.sleep(0.1)
        with it:
            yield it

    # --- faults -----------------------------------------------------------------------------------------

    def kill_backends(self) -> None:
        with self._connected() as it:
            it.execute(KILL_SESSIONS, [self.role])

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Make the database read-only, as after a failover to a standby that has not been promoted."""
        with self._altered("SET default_transaction_read_only = on", "RESET default_transaction_read_only"):
            yield
        self.kill_backends()  # existing sessions keep the old setting

    @contextmanager
    def full(self) -> Iterator[None]:
        """Allow only two more connections."""
        with self._altered("CONNECTION LIMIT 2", "CONNECTION LIMIT -1"):
            yield

    @contextmanager
    def _altered(self, change: str, back: str) -> Iterator[None]:
        with self._connected() as it:
            try:
                it.execute(f"ALTER DATABASE {self._database} {change}")
                it.execute(KILL_SESSIONS, [self.role])
                yield
            finally:
                it.execute(f"ALTER DATABASE {self._database} {back}")

    @contextmanager
    def rows_locked(self) -> Iterator[None]:
        with self._connected() as it, it.transaction():
            it.execute(f"SELECT 1 FROM {Environment._meta.db_table} FOR UPDATE")
            yield

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock that every change needs."""
        if not self.on_postgres:
            with self._sqlite() as file:
                file.execute("BEGIN IMMEDIATE")
                yield
                file.execute("ROLLBACK")
            return
        with self._connected() as it, it.transaction():
            it.execute(f"LOCK TABLE {Head._meta.db_table} IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def reading(self) -> Iterator[None]:
        """SQLite: keep a read transaction open."""
        with self._sqlite() as file:
            file.execute("BEGIN")
            file.execute(f"SELECT count(*) FROM {Head._meta.db_table}").fetchone()
            yield
            file.execute("ROLLBACK")

    def rewrite(self) -> None:
        with self._sqlite() as file:
            file.execute("VACUUM")

    @contextmanager
    def _sqlite(self) -> Iterator[sqlite3.Connection]:
        it = sqlite3.connect(connection.settings_dict["NAME"], timeout=30, isolation_level=None)
        try:
            yield it
        finally:
            it.close()

    # --- observations -----------------------------------------------------------------------------------

    def engine_seen_at(self) -> float:
        """Return when the engine last completed a sweep, as Unix time; 0 if never, or if it cannot be read now."""
        query = f"SELECT at FROM {Heartbeat._meta.db_table} WHERE job = "
        with suppress(psycopg.Error, sqlite3.Error):
            if self.on_postgres:
                with psycopg.connect(self.url, connect_timeout=5) as there:
                    row = there.execute(f"{query} %s", [ENGINE]).fetchone()
            else:
                with self._sqlite() as file:
                    row = file.execute(f"{query} ?", [ENGINE]).fetchone()
            if row:
                at = row[0] if isinstance(row[0], datetime) else datetime.fromisoformat(row[0])
                return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return 0.0
