"""One suite, two databases: `pytest --db sqlite` (the default) and `pytest --db postgres` (with Redis).

The second omits tests that use no database, because it would only repeat them. The first omits tests that need Redis.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Every run uses the same examples, and a slow machine fails none. `--hypothesis-profile explore` looks for new
# ones; each failure is printed as a line to copy above the test.
hypothesis.settings.register_profile(
    "steady",
    derandomize=True,
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("explore", hypothesis.settings.get_profile("steady"), derandomize=False)
hypothesis.settings.load_profile("steady")

# Fixtures through which a test uses a database, besides the mark `django_db`.
DATABASE_FIXTURES = {"db", "transactional_db", "instance"}
REDIS_FIXTURES = {"redis_port", "broker"}

# A set of texts, or an address in memory: pytest-xdist runs nothing if two workers name a test differently.
VARYING_ID = re.compile(r"\{'[^':]*'[,}]| at 0x[0-9a-f]+")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--db", choices=["sqlite", "postgres"], default="sqlite", help="the database under test")


def pytest_configure(config: pytest.Config) -> None:
    """Choose the database before anything reads the settings (pytest-django sets Django up after this)."""
    in_worker = hasattr(config, "workerinput")  # of pytest-xdist
    if not in_worker:
        _forget_this_machine()
        _bring_postgres(config)
        if config.getoption("numprocesses", None):
            # Only the workers load settings, each its own. A worker that inherited their name would load them too
            # early.
            os.environ.pop("DJANGO_SETTINGS_MODULE", None)
            return
    home = Path(tempfile.mkdtemp(prefix="pointsman-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    _bring_redis(config)
    os.environ["POINTSMAN_VAR"] = str(home)
    os.environ["STATIC_ROOT"] = str(home)  # one that exists
    os.environ["API_LIMIT"] = os.environ["SIGN_IN_LIMIT"] = "0"  # a suite sends more requests than any client
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    if config.getoption("--db") == "sqlite":
        os.environ["DATABASE_URL"] = f"sqlite:///{home / 'unused.sqlite3'}"

    from django.conf import settings

    handlers: Any = settings.LOGGING["handlers"]
    handlers["stderr"]["class"] = "tests.support.stderr.CurrentStderr"
    if config.getoption("--db") == "sqlite":
        # A file, because an in-memory SQLite database has other locks than the one in production.
        settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = str(home / "test.sqlite3")
        if template := os.environ.get(
            "POINTSMAN_TEST_TEMPLATE"
        ):  # `make mutants`: migrated once, for --reuse-db
            shutil.copy(template, home / "test.sqlite3")
            settings.DATABASES["default"]["TEST"]["MIGRATE"] = False
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a login in microseconds
    _list_static_files_once()


def _forget_this_machine() -> None:
    """Remove settings meant for other programs on this machine: variables of the same names, proxies, AWS keys."""
    text = (Path(__file__).parent.parent / "controlplane" / "settings.py").read_text()
    ours = set(re.findall(r"""env\.\w+\(\s*"([A-Z_]+)\"""", text))
    for name in list(os.environ):
        if name.removesuffix("_FILE") in ours or name.upper().endswith("_PROXY") or name.startswith("AWS_"):
            del os.environ[name]


def _list_static_files_once() -> None:
    """Let all test clients of this process share one list of the static files.

    Every `Client` loads the middleware anew, and listing 670 files took longer than most pages.
    """
    from whitenoise.middleware import WhiteNoiseMiddleware

    middleware: Any = WhiteNoiseMiddleware
    listing = middleware.add_files_from_finders
    listed: dict[str, Any] = {}

    def add_files_from_finders(self: Any) -> None:
        if not listed:
            listing(self)
            listed.update(self.files)
        self.files.update(listed)

    middleware.add_files_from_finders = add_files_from_finders


def _bring_postgres(config: pytest.Config) -> None:
    """Start one for all workers; pytest-django creates a database in it for each."""
    if config.getoption("--db") == "postgres":
        from tests.support import services

        os.environ["DATABASE_URL"] = services.postgres_url()
        config.add_cleanup(services.stop_all)


def _bring_redis(config: pytest.Config) -> None:
    """Start one for each worker, because messages in one Redis reach all of its databases."""
    os.environ["REDIS_URL"] = ""
    if config.getoption("--db") == "postgres":
        from tests.support import services

        os.environ["REDIS_URL"] = f"{services.redis_url()}/0"
        config.add_cleanup(services.stop_all)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    belongs = _touches_database if config.getoption("--db") == "postgres" else _needs_no_redis
    config.hook.pytest_deselected(items=[item for item in items if not belongs(item)])
    items[:] = [item for item in items if belongs(item)]
    if varying := [item.nodeid for item in items if VARYING_ID.search(item.nodeid)]:
        raise pytest.UsageError(
            f"Each process would give this test a different name; name its cases: {varying[0]}"
        )


def _touches_database(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return item.get_closest_marker("django_db") is not None or not DATABASE_FIXTURES.isdisjoint(fixtures)


def _needs_no_redis(item: pytest.Item) -> bool:
    return REDIS_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))


@pytest.fixture(autouse=True)
def _checkpoints_go_with_their_rows() -> Iterator[None]:
    """Remove the checkpoint file after each test. The rows that it describes are rolled back, so for the next test
    in this process it would prove that entries are missing.
    """
    yield
    (Path(os.environ["POINTSMAN_VAR"]) / "checkpoints").unlink(missing_ok=True)


@pytest.fixture(scope="session")
def s3() -> Iterator[Any]:
    """A store that speaks S3 (`tests.support.object_store.S3`)."""
    from tests.support import object_store

    with object_store.running() as s3:
        yield s3


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> Iterator[None]:
    """Let a transactional test be cleaned up, though append-only tables refuse to be emptied."""
    from django.db import connection, transaction

    from tests.support import append_only

    operations = type(connection.ops)
    flush = operations.execute_sql_flush

    def flush_with_triggers_lifted(self: Any, sql_list: list[str]) -> None:
        with transaction.atomic(), append_only.lifted():
            flush(self, sql_list)

    operations.execute_sql_flush = flush_with_triggers_lifted  # type: ignore[assignment, method-assign]
    yield
    operations.execute_sql_flush = flush  # type: ignore[method-assign]
