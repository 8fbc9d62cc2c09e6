"""The processes of an installation, by the commands in `deploy/`: gateway, worker, beat; on PostgreSQL and Redis."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from django.conf import settings

from rollout_app.models import Rollout
from tests.support import deployment, places
from tests.support.plane import PATIENCE_S, Server, process_environment, until


@pytest.fixture
def broker(transactional_db: None) -> str:
    """Redis, which test runs on SQLite do not have."""
    return str(settings.REDIS_URL)


def command_of(where: str) -> list[str]:
    (process,) = (process for process in deployment.processes() if process.where == where)
    return process.command


@contextmanager
def running(command: list[str], home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of the installation, and stop it as its supervisor would."""
    program, *arguments = (word.replace("/tmp/", f"{home}/") for word in command)
    if program == "celery":
        arguments = ["-m", "celery", *arguments]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env=process_environment(),
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_worker_and_beat_evaluate_what_the_gateway_serves(broker: str, tmp_path: Path) -> None:
    rollout = places.started()
    with ExitStack() as stack:
        server = stack.enter_context(Server())
        stack.enter_context(running(command_of("compose worker"), tmp_path))
        stack.enter_context(running(command_of("compose beat"), tmp_path))
        until(lambda: Rollout.objects.get(pk=rollout.pk).evaluated_at)
        until(lambda: httpx.get(f"{server.url}/readyz", timeout=PATIENCE_S).status_code == 200)
        for path in ("/healthz", "/metrics"):
            assert httpx.get(server.url + path, timeout=PATIENCE_S).status_code == 200, path
