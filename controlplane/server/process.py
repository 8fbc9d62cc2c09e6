"""granian as `manage.py serve` runs it: its workers, its limits, and an end that routers do not notice."""

import logging
import multiprocessing
import os
import resource
import signal
import socket
import time
from contextlib import suppress
from typing import Any

from django.conf import settings
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.mp import MPServer

from controlplane.server.worker import DRAIN, PARENT

log = logging.getLogger(__name__)

APPLICATION = "controlplane.asgi:application"
BACKLOG = 4_096  # connections that wait to be accepted
CONNECTIONS = 20_000  # held by one worker at once: long polls, mostly; what comes beyond waits in the backlog
FILES = 65_536  # open at once: a connection is one
HEAD_BYTES = 64 * 1024  # of a request's line and headers
# Between requests, and for the headers of one. Longer than clients and proxies keep a connection: one that is closed
# just when it is used again costs them an error.
IDLE_S = 75
KILLED_AFTER_S = 60  # a worker that was asked to end

LIMITS: dict[str, Any] = {
    "http": HTTPModes.http1,
    "websockets": False,
    "backlog": BACKLOG,
    "backpressure": CONNECTIONS,
    "http1_settings": HTTP1Settings(header_read_timeout=IDLE_S * 1000, max_buffer_size=HEAD_BYTES),
}


class PointsmanServer(MPServer):
    """granian, which lets its workers drain for `grace_s` seconds before it ends them."""

    def __init__(self, address: str, port: int, workers: int, grace_s: float) -> None:
        super().__init__(
            APPLICATION,
            address=address,
            port=port,
            workers=workers,
            interface=Interfaces.ASGI,
            log_dictconfig=_logging(),
            respawn_failed_workers=True,
            workers_kill_timeout=KILLED_AFTER_S,
            **LIMITS,
        )
        self._grace_s = grace_s

    def shutdown(self, exit_code: int = 0) -> None:
        """Readiness goes down and long polls are answered first; what comes meanwhile is still served."""
        for worker in multiprocessing.active_children():
            with suppress(ProcessLookupError, TypeError):
                os.kill(worker.pid, DRAIN)  # type: ignore[arg-type]
        time.sleep(self._grace_s)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def serve(address: str, port: int, workers: int, grace_s: float) -> None:
    """Serve until SIGTERM or SIGINT. Ends the process with status 1 when workers die as soon as they start."""
    _raise_limit()
    os.environ[PARENT] = str(os.getpid())
    signal.signal(DRAIN, signal.SIG_IGN)  # a worker that is still starting must not end of it
    PointsmanServer(address, port, workers, grace_s).serve()


def resolved(host: str, port: int) -> str:
    """The address of a host's name. Raises `OSError`."""
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])


def refuse_taken(address: str, port: int) -> None:
    """Raises `OSError` when the port is taken. Workers share it by SO_REUSEPORT, and so would a second server."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _raise_limit() -> None:
    """Many systems begin with 1,024 open files, which is as many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _logging() -> dict[str, Any]:
    """The settings', in every process: granian would write lines of its own to the standard output."""
    configured: dict[str, Any] = settings.LOGGING
    loggers = {**configured["loggers"], "_granian": {"handlers": [], "propagate": True}}
    return {**configured, "loggers": loggers}
