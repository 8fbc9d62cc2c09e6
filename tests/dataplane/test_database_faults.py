"""Faults of the database connection under a running server: it reports them, keeps serving, and recovers by itself."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.db import OperationalError, connection, connections, transaction
from django.test import Client
from psycopg.errors import DeadlockDetected, QueryCanceled, SerializationFailure

from controlplane.access.actions import revoke_key
from controlplane.access.keyring import Keyring
from controlplane.audit import log
from controlplane.core import clock, patience, threads
from controlplane.core.actors import SYSTEM
from controlplane.core.problems import as_problem
from controlplane.core.threads import LoopThread
from policies_app import actions
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.serving import SnapshotService
from policies_app.snapshots.watcher import Watcher
from tests.support.plane import PATIENCE_S, Plane, Served, Server, key_row, until
from tests.support.proxy import Proxy
from tests.support.reports import batch, bucket

SNAPSHOT, OUTCOMES = "/router/v1/snapshot", "/router/v1/outcomes"


class Worker(LoopThread):
    """A thread whose rounds raise the given errors."""

    retry_s = 0.01

    def __init__(self, *errors: BaseException) -> None:
        super().__init__("worker")
        self.errors = list(errors)
        self.rounds = self.finished = 0

    def round(self) -> float:
        self.rounds += 1
        if self.errors:
            raise self.errors.pop(0)
        return 0.01

    def finish(self) -> None:
        self.finished += 1
        raise ValueError


def test_no_error_ends_a_loop_thread(caplog: Any) -> None:
    """A raw driver error, which Django does not wrap, once killed the watcher, so revoked keys worked for ever."""
    worker = Worker(psycopg.OperationalError("the connection is lost"), ValueError("?"), MemoryError())
    worker.start()
    until(lambda: worker.rounds >= 6)
    assert worker.age() < PATIENCE_S
    assert worker.stop()
    assert worker.finished == 1
    assert "works again" in caplog.text


def test_essential_threads_give_up_on_the_database_within_ten_seconds() -> None:
    """F12: threads that read the database for a process wait this long for an answer, and no longer."""

    class Looker(LoopThread):
        seconds = 0.0

        def round(self) -> float:
            self.seconds = patience._seconds.get()
            return 0.01

    looker = Looker("looker")
    looker.start()
    until(lambda: looker.seconds)
    assert looker.stop()
    assert 0 < looker.seconds < 10


def test_the_age_of_a_thread_grows_while_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(ValueError(), ValueError())
    worker._succeeded_at -= 100
    assert worker._try_round() == worker.retry_s
    assert worker.age() >= 100
    worker.errors.clear()
    worker._try_round()
    assert worker.age() < 100


def test_an_outage_does_not_fill_the_log(caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "REPEATED_EVERY_S", 3600)
    worker = Worker(*(psycopg.OperationalError("away") for _ in range(50)))
    worker.expected = (psycopg.Error,)
    for _ in range(50):
        worker._try_round()
    assert caplog.text.count("worker fails") == 1
    assert "Traceback" not in caplog.text


@pytest.mark.django_db(transaction=True)
def test_the_watcher_survives_a_connection_cut_in_the_middle_of_a_cursor(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between FETCH and CLOSE: the remaining keys do not arrive, and the cursor cannot be closed."""
    reload, calls = Keyring.reload, [0]

    def cut_once(self: Keyring) -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise psycopg.OperationalError(
                "consuming input failed: server closed the connection unexpectedly"
            )
        reload(self)

    monkeypatch.setattr(Keyring, "reload", cut_once)
    with Plane() as plane:
        until(lambda: calls[0] >= 3)
        actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
        until(lambda: plane.snapshot(served.key).json()["revision"] == 2)
        revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: plane.snapshot(served.key).status == 401)


def test_a_watcher_that_cannot_read_reports_it() -> None:
    watcher = Watcher(SnapshotService(Keyring(), FleetBuffer()), Keyring())
    assert (watcher.polled_ago(), watcher.keys_read_ago()) == (None, None)
    watcher.polled_at = time.monotonic() - 31
    assert (watcher.polled_ago() or 0) >= 31


# --- a proxy in front of PostgreSQL ----------------------------------------------------------------------


@pytest.fixture
def proxy(served: Served) -> Iterator[Proxy]:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no connection that could be cut")
    with Proxy(int(connection.settings_dict["PORT"])) as proxy:
        yield proxy


def _through(proxy: Proxy) -> dict[str, Any]:
    database = connection.settings_dict
    return {"DATABASE_URL": f"postgres://{database['USER']}@127.0.0.1:{proxy.port}/{database['NAME']}"}


def test_silent_connections_are_given_up(served: Served, proxy: Proxy) -> None:
    """Half open: no data and no reset. New connections work, so batches, keys and snapshots continue."""
    headers = {"Authorization": f"Bearer {served.key}"}
    with (
        Server(**_through(proxy)) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S) as client,
    ):
        assert client.post(OUTCOMES, json=batch(bucket(served.assignment))).status_code == 202
        assert proxy.hold() > 0

        def accepted() -> bool:
            return client.post(OUTCOMES, json=batch(bucket(served.assignment))).status_code == 202

        until(accepted)
        pinned = actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
        until(lambda: client.get(SNAPSHOT).json()["revision"] == pinned.revision)
        revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
        until(lambda: client.get(SNAPSHOT).status_code == 401)


def test_a_gateway_without_its_database_reports_it_and_keeps_serving(served: Served, proxy: Proxy) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with (
        Server(**_through(proxy)) as server,
        httpx.Client(base_url=server.url, headers=headers, timeout=PATIENCE_S) as client,
    ):
        until(lambda: client.get("/readyz?exclude=engine").status_code == 200)
        proxy.refuse()
        proxy.cut()
        assert client.get(SNAPSHOT).status_code == 200
        for check, said in (("watcher", "has not worked for"), ("database", "no answer for")):
            until(lambda: said in client.get("/readyz").json()["checks"][check], 2 * PATIENCE_S)  # noqa: B023
        assert client.get("/readyz?exclude=engine").status_code == 503
        assert client.get(SNAPSHOT).status_code == 200
        assert client.get("/healthz").status_code == 200
        refused = client.post(OUTCOMES, json=batch(bucket(served.assignment)))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        proxy.heal()
        until(lambda: client.get("/readyz?exclude=engine").status_code == 200)
        assert client.post(OUTCOMES, json=batch(bucket(served.assignment))).status_code == 202


def test_pages_say_that_the_database_is_away(served: Served, proxy: Proxy) -> None:
    with (
        Server(**_through(proxy)) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        client.cookies.set("sessionid", "x" * 32)
        assert client.get("/console/").status_code == 302
        proxy.refuse()
        proxy.cut()
        for path, kind in (("/console/", "text/html"), ("/api/v1/workloads", "application/problem+json")):
            refused = client.get(path)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5"), path
            assert refused.headers["content-type"].startswith(kind)
            assert "The database cannot be reached at the moment" in refused.text
        proxy.heal()
        until(lambda: client.get("/console/").status_code == 302)


@pytest.mark.django_db(transaction=True)
def test_a_change_that_is_in_the_way_of_another_says_so(client: Client) -> None:
    """It was called a database that cannot be reached."""
    person = User.objects.create_superuser("ann", password="a long password")
    client.force_login(person)
    client.raise_request_exception = False
    held, answered = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                log.locked_head()
                held.set()
                answered.wait(PATIENCE_S)
        finally:
            connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(PATIENCE_S)
    impatient = {"postgresql": "SET lock_timeout = '200ms'", "sqlite": "PRAGMA busy_timeout = 200"}
    try:
        with connection.cursor() as cursor:
            cursor.execute(impatient[connection.vendor])
        refused = client.post(
            "/api/v1/environments", {"name": "another", "reason": "now"}, content_type="application/json"
        )
    finally:
        answered.set()
        holder.join()
        connection.close()
    assert (refused.status_code, refused["Retry-After"], refused.json()["code"]) == (503, "5", "unavailable")
    assert "Another change at the same moment" in refused.json()["detail"]


@pytest.mark.parametrize("cause", [DeadlockDetected, SerializationFailure])
def test_so_does_one_that_the_database_rolled_back(cause: type[Exception]) -> None:
    error = OperationalError("deadlock detected\nDETAIL: …")
    error.__cause__ = cause()
    problem, headers = as_problem(error)
    assert problem is not None
    assert (problem["status"], headers) == (503, {"Retry-After": "5"})
    assert "Another change at the same moment" in problem["detail"]


def test_a_query_that_takes_too_long_is_not_called_a_database_that_is_away() -> None:
    error = OperationalError("canceling statement due to statement timeout")
    error.__cause__ = QueryCanceled()
    problem, _ = as_problem(error)
    assert problem is not None
    assert (problem["status"], "took too long" in problem["detail"]) == (503, True)


@pytest.mark.django_db(transaction=True)
def test_pages_say_that_the_database_is_read_only(served: Served, client: Client) -> None:
    """This happens after a failover to a standby that has not been promoted yet."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite's file is read-only or not, and says so at the start")
    person = User.objects.create_superuser("ann", password="a long password")
    client.force_login(person)
    client.raise_request_exception = False
    visitor = Client(raise_request_exception=False)
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = on")
    try:
        assert client.get("/console/").status_code == 200  # reading still works
        new = {"name": "another", "reason": "now"}
        change = client.post("/api/v1/environments", new, content_type="application/json")
        login = visitor.post("/console/login/", {"username": "ann", "password": "a long password"})
    finally:
        connection.close()
    for refused, kind in ((change, "application/problem+json"), (login, "text/html")):
        assert (refused.status_code, refused["Retry-After"]) == (503, "5")
        assert refused["Content-Type"].startswith(kind)
        assert "The database is read-only at the moment" in refused.content.decode()


@pytest.mark.django_db(transaction=True)
def test_every_connection_has_time_limits() -> None:
    if connection.vendor != "postgresql":
        assert settings.DATABASES["default"]["OPTIONS"]["timeout"] == 20
        return
    connection.close()
    with connection.cursor() as cursor:
        for name, expected in (
            ("statement_timeout", "30s"),
            ("lock_timeout", "20s"),
            ("idle_in_transaction_session_timeout", "15s"),
        ):
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() == (expected,)
    parameters = connection.get_connection_params()
    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == (5, 8_000)


@pytest.mark.django_db(transaction=True)
def test_a_thread_limits_its_wait_for_an_answer() -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has nobody in between who could stay silent")
    connection.close()
    with (
        patience.patience(0.2),
        connection.cursor() as cursor,
        pytest.raises(Exception, match=r"has not answered for 0\.2 s"),
    ):
        cursor.execute("SELECT pg_sleep(3)")
    connections.close_all()
    with connection.cursor() as cursor:  # the next connection works normally
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@pytest.mark.django_db(transaction=True)
def test_a_thread_that_only_reads_connects_again_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failover by a name, the former primary may go on answering, out of date: the watcher read it for ever."""
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)

    class Reads(LoopThread):
        def round(self) -> float:
            clock.now()
            return 0

    thread = Reads("reads")
    thread._try_round()
    first = connection.connection
    thread._try_round()
    assert connection.connection is first
    connection.close_at = time.monotonic()
    thread._try_round()
    assert connection.connection is not first
