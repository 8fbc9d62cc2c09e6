"""`manage.py serve` as a process: its workers, their replacement, its shutdown, and what it refuses."""

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from controlplane.core import clock
from controlplane.core.models import Heartbeat
from controlplane.server import process
from tests.support.plane import PATIENCE_S, Served, Server, until
from tests.support.services import free_port


def _workers(server: Server) -> set[int]:
    """Return the processes started by the server."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return {
        int(pid) for pid in children if b"resource_tracker" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


def _answers(server: Server) -> bool:
    try:
        return httpx.get(f"{server.url}/healthz", timeout=PATIENCE_S).is_success
    except httpx.HTTPError:
        return False


def test_a_worker_that_dies_is_replaced(served: Served) -> None:
    with Server() as server:
        (first,) = _workers(server)
        os.kill(first, signal.SIGKILL)
        until(lambda: _workers(server) - {first})
        until(lambda: _answers(server))
        assert first not in _workers(server)


def test_several_workers_share_the_port(served: Served) -> None:
    if settings.DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        with pytest.raises(CommandError, match="SQLite allows one writer"):
            call_command("serve", port=free_port(), workers=2)
        return
    with Server(WORKERS="2") as server:
        assert len(_workers(server)) == 2
        met: set[str] = set()
        headers = {"Authorization": f"Bearer {served.key}"}

        def both_have_answered() -> bool:
            httpx.get(f"{server.url}/router/v1/snapshot", headers=headers)
            text = httpx.get(f"{server.url}/metrics").text
            met.update(line.split('pid="')[1].split('"')[0] for line in text.splitlines() if 'pid="' in line)
            return len(met) == 2

        until(both_have_answered)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order(served: Served, how: signal.Signals) -> None:
    with Server() as server:
        workers = _workers(server)
        server.process.send_signal(how)
        assert server.process.wait(PATIENCE_S) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_ctrl_c_reaches_every_process_and_ends_them_in_order(served: Served) -> None:
    with Server() as server:
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(PATIENCE_S) == 0


def test_workers_end_with_a_parent_that_was_killed(served: Served) -> None:
    with Server() as server:
        server.process.kill()
        server.process.wait(PATIENCE_S)
        until(lambda: not _answers(server))


def test_a_taken_port_is_reported_in_a_sentence(db: None) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as held,
        pytest.raises(CommandError, match=r"Cannot listen on 127\.0\.0\.1:\d+: Address already in use"),
    ):
        call_command("serve", host="127.0.0.1", port=held.getsockname()[1], workers=1)


def test_the_host_may_be_a_name() -> None:
    assert process.resolved("localhost", 80) in ("127.0.0.1", "::1")
    with pytest.raises(OSError, match="not known"):
        process.resolved("no-such-host.invalid", 80)


def test_it_serves_a_page_while_clients_do_not_read(served: Served) -> None:
    """10 connections request 30 static files each and read none; the console and the probes still answer."""
    with Server() as server:
        silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
        request = b"GET /static/console/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
        try:
            for connection in silent:
                connection.sendall(request * 30)
            with httpx.Client(base_url=server.url, timeout=20) as client:
                for path in ("/healthz", "/console/login/", "/api/v1/schema", "/static/console/console.css"):
                    assert client.get(path).status_code == 200, path
        finally:
            for connection in silent:
                connection.close()


def test_clients_that_reset_cause_no_tracebacks(served: Served, tmp_path: Path) -> None:
    log = tmp_path / "log"
    linger: Any = (socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() sends RST
    requests = [
        b"GET /router/v1/snapshot HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n" % served.key.encode(),
        b"POST /router/v1/outcomes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\nContent-Length: 99\r\n\r\n{"
        % served.key.encode(),
        b"GET /console/login/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /static/console/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3,
    ]
    with log.open("wb") as stream, Server(stderr=stream) as server:
        for number in range(200):
            connection = socket.create_connection(("127.0.0.1", server.port))
            connection.setsockopt(*linger)
            connection.sendall(requests[number % len(requests)])
            connection.close()
        assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE_S).is_success
        assert httpx.get(f"{server.url}/console/login/", timeout=PATIENCE_S).is_success
    text = log.read_text()
    assert "Traceback" not in text
    assert '"level": "error"' not in text


def test_it_is_ready_while_its_engine_runs_and_not_ready_without_one(served: Served) -> None:
    with Server(EMBEDDED_RUNNER="true") as server:
        until(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
    Heartbeat.objects.update(at=clock.now() - timedelta(seconds=60))
    with Server() as server:  # without a runner, and there is no worker
        until(lambda: "sweep ended" in httpx.get(f"{server.url}/readyz").json()["checks"]["engine"])
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        until(lambda: httpx.get(f"{server.url}/readyz?exclude=engine").status_code == 200)


def test_liveness_waits_for_nothing(served: Served) -> None:
    """Ten people sign in while somebody holds the database's write lock; the probes still answer."""
    with Server() as server, ThreadPoolExecutor(10) as pool, transaction.atomic():
        Heartbeat.objects.update_or_create(job="held", defaults={"at": clock.now()})
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE auth_user, access_session IN ACCESS EXCLUSIVE MODE")
        with httpx.Client(base_url=server.url, timeout=PATIENCE_S) as page:
            token = page.get("/console/login/").cookies["csrftoken"]

        def sign_in(_: int) -> int:
            form = {"username": "ann", "password": "x", "csrfmiddlewaretoken": token}
            with httpx.Client(
                base_url=server.url, cookies={"csrftoken": token}, timeout=PATIENCE_S
            ) as person:
                return person.post("/console/login/", data=form).status_code

        waiting = [pool.submit(sign_in, number) for number in range(10)]
        with httpx.Client(base_url=server.url, timeout=10) as prober:
            for _ in range(20):
                assert prober.get("/healthz").status_code == 200
                assert prober.get("/metrics").status_code == 200
        transaction.set_rollback(True)
    assert {answer.result(PATIENCE_S) for answer in waiting} <= {200, 302, 429, 503}
