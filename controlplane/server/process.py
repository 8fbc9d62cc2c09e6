"""granian as run by `manage.py serve`: workers, limits, and a shutdown that routers do not notice."""

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
BACKLOG = 4_096  # connections waiting to be accepted
CONNECTIONS = 20_000  # per worker, mostly long polls; further ones wait in the backlog
FILES = 65_536  # open file descriptors; each connection needs one
HEAD_BYTES = 64 * 1024  # for the request line and headers
# For an idle connection, and for the headers of a request. Longer than clients and proxies keep connections: closing
# one just as it is reused would cost them an error.
IDLE_S = 75
KILLED_AFTER_S = 60  # seconds after a worker was asked to end

LIMITS: dict[str, Any] = {
    "http": HTTPModes.http1,
    "websockets": False,
    "backlog": BACKLOG,
    "backpressure": CONNECTIONS,
    "http1_settings": HTTP1Settings(header_read_timeout=IDLE_S * 1000, max_buffer_size=HEAD_BYTES),
}


class PointsmanServer(MPServer):
    """granian's server, but workers drain for `grace_s` seconds before they are ended."""

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
        """Report not ready and answer long polls first. Requests that arrive in the meantime are still served."""
        for worker in multiprocessing.active_children():
            with suppress(ProcessLookupError, TypeError):
                os.kill(worker.pid, DRAIN)  # type: ignore[arg-type]
        time.sleep(self._grace_s)
        super().shutdown(exit_code)  # type: ignore[no-untyped-call]


def serve(address: str, port: int, workers: int, grace_s: float) -> None:
    """Serve until SIGTERM or SIGINT. Exit with status 1 if workers die as soon as they start."""
    _raise_limit()
    os.environ[PARENT] = str(os.getpid())
    signal.signal(DRAIN, signal.SIG_IGN)  # a worker that is still starting must not die of this signal
    PointsmanServer(address, port, workers, grace_s).serve()


def resolved(host: str, port: int) -> str:
    """Resolve a host name. Raises `OSError`."""
    return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])


def refuse_taken(address: str, port: int) -> None:
    """Raise `OSError` if the port is taken. Workers share it with SO_REUSEPORT, and so would a second server."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _raise_limit() -> None:
    """Raise the limit on open files. Many systems start with 1,024, which would also limit connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _logging() -> dict[str, Any]:
    """Return the settings' logging for every process. Otherwise granian would write its own lines to standard
    output."""
    configured: dict[str, Any] = settings.LOGGING
    loggers = {**configured["loggers"], "_granian": {"handlers": [], "propagate": True}}
    return {**configured, "loggers": loggers}
