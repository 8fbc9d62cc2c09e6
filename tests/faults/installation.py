"""An installation of real processes, with a proxy on every connection between them, restarted when they exit.

On SQLite: one gateway with its embedded runner. On PostgreSQL and Redis: two gateways, two workers, two beats.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import redis
from django.conf import settings
from django.db import connection

from tests.faults.administrator import Administrator
from tests.faults.clocks import Clock, Clocks, clocks
from tests.support.plane import PATIENCE_S, process_environment, until
from tests.support.proxy import Proxy
from tests.support.services import free_port, start_redis

WORKER = ("worker", "--without-mingle", "--without-gossip", "--concurrency", "1")
ENDS_WITHIN_S = 10.0
RESTARTED_AFTER_S = 0.5  # 2 s in deploy/systemd


class Process:
    """One process of the installation, restarted whenever it exits."""

    database: Proxy  # its own connection to PostgreSQL
    clock: Clock  # its own, if possible

    def __init__(self, name: str, command: list[str], home: Path, **environment: str) -> None:
        self.name = name
        self._command, self._environment = command, process_environment(**environment)
        self._log = (home / f"{name}.log").open("wb")
        self._home = home
        self.starts = 0
        self.stopping = False
        self.start()

    def start(self) -> None:
        self.starts += 1
        self.running = subprocess.Popen(
            [sys.executable, *self._command],
            env=self._environment,
            cwd=self._home,
            stdout=self._log,
            stderr=self._log,
            process_group=0,
        )

    def signal(self, number: signal.Signals) -> None:
        """Send the signal to the process and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.running.pid, number)

    def children(self) -> list[int]:
        """Return its child processes: granian's workers, or Celery's pool."""
        try:
            found = Path(f"/proc/{self.running.pid}/task/{self.running.pid}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in found.split()]

    @property
    def up(self) -> bool:
        return self.running.poll() is None

    def terminate(self) -> None:
        self.stopping = True
        self.signal(signal.SIGCONT)
        if self.up:
            self.running.send_signal(signal.SIGTERM)

    def end(self, within_s: float) -> None:
        """Wait for its exit. Kill it if it does not exit in time, perhaps because of a fault."""
        with suppress(subprocess.TimeoutExpired):
            self.running.wait(within_s)
        self.signal(signal.SIGKILL)
        self.running.wait()
        self._log.close()


class Installation:
    """Use as `with Installation(home) as installation`. `urls` lead to the gateways through their proxies (`doors`)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.on_postgres = connection.vendor == "postgresql"
        self.clocks: Clocks | None = clocks(home)
        self.processes: list[Process] = []
        self.doors: list[Proxy] = []  # in front of each gateway; a single gateway has two
        self.redis_door: Proxy  # in front of Redis
        self.administrator: Administrator  # of the database
        self.urls: list[str] = []  # through each door
        self.direct: list[str] = []  # of each gateway, without its proxies
        self._stack = ExitStack()
        self._http = self._stack.enter_context(httpx.Client(timeout=5))
        self._over = threading.Event()
        self._restarting = threading.Lock()  # prevents a restart during the shutdown
        self._previous_handler: Any = None  # the previous handler of SIGTERM

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._previous_handler is not None:
            signal.signal(signal.SIGTERM, self._previous_handler)
        with self._restarting:
            for process in self.processes:
                process.terminate()
        ends = time.monotonic() + ENDS_WITHIN_S
        for process in self.processes:
            process.end(max(0.1, ends - time.monotonic()))
        self._stack.close()

    def _on_sigterm(self, number: int, frame: object) -> None:
        """Stop every process of the installation, because the tests were told to exit."""
        self._over.set()
        with self._restarting:
            for process in self.processes:
                process.stopping = True
                process.signal(signal.SIGKILL)
        sys.exit(128 + number)

    def _start(self) -> None:
        with suppress(ValueError):  # only the main thread can set a handler
            self._previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        self.administrator = self._stack.enter_context(Administrator())
        if self.on_postgres:
            self.redis_port = free_port()
            start_redis(self.redis_port)
            self._stack.callback(self._end_redis)
            self.redis_door = self._stack.enter_context(Proxy(self.redis_port))
        for number in range(2 if self.on_postgres else 1):
            self._gateway(number)
        if self.on_postgres:
            for number in range(2):
                self._celery(f"worker-{number}", *WORKER)
                self._celery(f"beat-{number}", "beat", "--schedule", str(self.home / f"schedule-{number}"))
        threading.Thread(target=self._supervise, daemon=True).start()
        until(self.ready, 3 * PATIENCE_S)

    def _gateway(self, number: int) -> None:
        port = free_port()
        for _ in range(1 if self.on_postgres else 2):
            door = self._stack.enter_context(Proxy(port))
            self.doors.append(door)
            self.urls.append(f"http://127.0.0.1:{door.port}")
        self.direct.append(f"http://127.0.0.1:{port}")
        command = [str(settings.BASE_DIR / "manage.py"), "serve", "--port", str(port), "--grace", "0.2"]
        runner = "false" if self.on_postgres else "true"
        self._process(f"gateway-{number}", command, EMBEDDED_RUNNER=runner)

    def _celery(self, name: str, *arguments: str) -> None:
        self._process(name, ["-m", "celery", "-A", "controlplane.celery", *arguments])

    def _process(self, name: str, command: list[str], **environment: str) -> None:
        given: dict[str, Any] = {}
        if self.on_postgres:
            database = urlsplit(process_environment()["DATABASE_URL"])
            proxy = given["database"] = self._stack.enter_context(Proxy(database.port or 5432))
            place = f"{self.administrator.role}@127.0.0.1:{proxy.port}"
            environment["DATABASE_URL"] = f"postgres://{place}{database.path}"
            environment["REDIS_URL"] = f"redis://127.0.0.1:{self.redis_door.port}/0"
        if self.clocks is not None:
            given["clock"] = self.clocks.clock(name)
            environment |= given["clock"].environment
        process = Process(name, command, self.home, **environment)
        vars(process).update(given)
        self.processes.append(process)

    def _supervise(self) -> None:
        """Restart processes that have exited, like `Restart=always`."""
        while not self._over.wait(RESTARTED_AFTER_S):
            for process in self.processes:
                with self._restarting:
                    if process.running.poll() is not None and not process.stopping:
                        process.signal(signal.SIGKILL)  # children that a killed parent left behind
                        process.start()

    def _end_redis(self) -> None:
        with suppress(redis.RedisError):
            redis.Redis(port=self.redis_port).shutdown(nosave=True)

    # --- queries ----------------------------------------------------------------------------------------

    def named(self, kind: str) -> list[Process]:
        return [process for process in self.processes if process.name.startswith(kind)]

    @property
    def databases(self) -> list[Proxy]:
        """The proxies between the processes and PostgreSQL."""
        return [process.database for process in self.processes]

    def ready(self) -> bool:
        """Return whether every process runs, and every gateway is ready, including its engine."""
        return not any(self.missing())

    def missing(self) -> Iterator[str]:
        """Yield what does not work at the moment."""
        yield from (process.name for process in self.processes if not process.up)
        for number, url in enumerate(self.direct):
            if unready := self._unready(url):
                yield f"{unready} of gateway-{number}"

    def _unready(self, url: str) -> str:
        """Return the first failing check, or why there is no response; "" if all is well."""
        try:
            answer = self._http.get(url + "/readyz")
            if answer.status_code == 200:
                return ""
            checks = answer.json().get("checks", {})
        except (httpx.HTTPError, ValueError) as error:
            return type(error).__name__
        failed = [name for name, outcome in checks.items() if outcome != "ok" and name != "redis"]
        return failed[0] if failed else "readiness"

    def logs(self) -> Iterator[tuple[str, str]]:
        for process in self.processes:
            yield process.name, (self.home / f"{process.name}.log").read_text(errors="replace")


def pause(seconds: float) -> None:
    """Sleep for the duration of a fault."""
    time.sleep(seconds)
