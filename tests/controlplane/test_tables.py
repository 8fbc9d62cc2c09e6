"""Processes and commands on a database whose tables are not those of this version."""

import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from controlplane.core import tables
from controlplane.server.health import Health
from policies_app.models import Environment
from tests.support.plane import PATIENCE_S, process_environment
from tests.support.services import free_port

NEWER = (
    "This database was migrated by a newer version (rollout_app.9999_new). Run that version or a newer one."
)
CELERY = ("-m", "celery", "-A", "controlplane.celery")
PROCESSES = {
    "serve": ("manage.py", "serve", "--port"),
    "worker": (*CELERY, "worker", "--without-mingle", "--without-gossip", "--concurrency", "1"),
    "beat": (*CELERY, "beat", "--schedule"),
}


@pytest.fixture
def empty_database(transactional_db: None, tmp_path: Path) -> Iterator[str]:
    """Return the URL of an empty database of the kind under test."""
    if connection.vendor == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.sqlite3'}"
        return
    address = process_environment()["DATABASE_URL"]
    name = f"empty_{os.getpid()}"
    with psycopg.connect(address, autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        yield f"{address.rpartition('/')[0]}/{name}"
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


def started(database: str, var: Path, *words: str) -> "subprocess.Popen[str]":
    """Start a process of this version on another database."""
    redis = f"redis://127.0.0.1:{free_port()}/0" if "celery" in words else ""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=settings.BASE_DIR,
        env=process_environment(DATABASE_URL=database, POINTSMAN_VAR=str(var), REDIS_URL=redis),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("process", PROCESSES)
def test_an_unmigrated_database_is_reported_in_a_sentence(
    empty_database: str, tmp_path: Path, process: str
) -> None:
    """F19: nothing else is printed, no traceback for each thread that finds a table missing."""
    last = {"serve": [str(free_port())], "beat": [str(tmp_path / "schedule")]}.get(process, [])
    running = started(empty_database, tmp_path, *PROCESSES[process], *last)
    output, errors = running.communicate(timeout=PATIENCE_S)
    assert running.returncode != 0
    assert errors.splitlines()[-1].endswith("Run `manage.py migrate` first.")
    assert "Traceback" not in output + errors
    if process == "serve":  # Celery says before that it starts
        assert len(errors.splitlines()) == 1
        assert output == ""


def test_two_migrations_at_once_wait_for_each_other(empty_database: str, tmp_path: Path) -> None:
    """Both created the same tables, and one failed with `DuplicateTable`."""
    running = [started(empty_database, tmp_path, "manage.py", "migrate") for _ in range(2)]
    ended = [(one.communicate(timeout=5 * PATIENCE_S), one.returncode) for one in running]
    assert [code for _, code in ended] == [0, 0], [errors for (_, errors), _ in ended]


@pytest.fixture
def newer(db: None) -> None:
    """Let the database be that of a newer version."""
    MigrationRecorder(connection).record_applied("rollout_app", "9999_new")


@pytest.mark.parametrize("command", ["serve", "setup_instance", "migrate"])
def test_older_code_refuses_the_tables_of_newer_code(newer: None, command: str) -> None:
    """It ran, reported ready, and wrote rows by rules that the newer version had replaced."""
    with pytest.raises(CommandError) as refused:
        call_command(command, stdout=StringIO())
    assert str(refused.value) == NEWER


def test_the_tables_of_newer_code_are_not_ready(newer: None) -> None:
    checks = Health({})._checks
    checks["migrations"].refresh()
    assert checks["migrations"].outcome() == NEWER


@pytest.mark.django_db
def test_a_migration_of_a_removed_package_is_not_newer_code() -> None:
    MigrationRecorder(connection).record_applied("removed", "0001_initial")
    MigrationRecorder(connection).record_applied("sessions", "9999_new")
    assert tables.unfit() == ""


@pytest.mark.django_db
def test_an_instance_is_not_set_up_in_half_migrated_tables() -> None:
    """It was a traceback; `serve` says the same sentence."""
    MigrationRecorder(connection).record_unapplied("review", "0003_owners_and_ages")
    with pytest.raises(CommandError) as refused:
        call_command("setup_instance", stdout=StringIO())
    said = "The database is not up to date: 1 migration has not been applied. Run `manage.py migrate` first."
    assert str(refused.value) == said
    assert not Environment.objects.exists()
