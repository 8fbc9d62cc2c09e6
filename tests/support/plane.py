"""One gateway in a thread of this process, behind the server used by `serve`; and whole servers as processes."""

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import msgspec
import uvloop
from django.conf import settings
from django.db import connection
from granian.constants import Interfaces
from granian.server.embed import Server as Embedded

from controlplane.access.actions import issue_key
from controlplane.access.models import Key
from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from controlplane.server import process
from controlplane.server.gateway import Gateway
from controlplane.server.messages import Application
from controlplane.web.replies import Reply, Request
from policies_app.models import Assignment, Environment
from tests.support.services import free_port

T = TypeVar("T")
# Time limits for events that must happen. No test is about them; they only end a failed one.
PATIENCE_S = 60
START_S = 120  # a server's start takes a few seconds of processor time


@dataclass
class Served:
    """An environment that serves one workload, and a router's key for it."""

    environment: Environment
    assignment: Assignment
    key: str


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """The code of the problem."""
        assert self.headers["content-type"] == "application/problem+json"
        return str(self.json()["code"])


async def _django(request: Request) -> Reply:
    """Replaces what is behind the gateway."""
    return Reply(418, [], b"behind")


class Asked(Future[Answered]):
    """A future response, and its connection."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self.asking: Future[None]
        self.connection: asyncio.WriteTransport

    def hang_up(self) -> None:
        self._loop.call_soon_threadsafe(self.connection.abort)


class Granian:
    """`with Granian(application) as server`: behind the server used by `serve`, on an event loop in a thread.

    It has the limits that `serve` sets.
    """

    def __init__(self, application: Any, **limits: Any) -> None:
        self._application = application
        self._limits = {**process.LIMITS, **limits}
        self.port = free_port()

    def __enter__(self) -> Self:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.embedded = Embedded(
            self._application,
            address="127.0.0.1",
            port=self.port,
            interface=Interfaces.ASGINL,
            log_enabled=False,
            **self._limits,
        )
        self._serving = asyncio.run_coroutine_threadsafe(self.embedded.serve(), self.loop)
        until(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.embedded.stop)
        self._serving.result(PATIENCE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def _listens(self) -> bool:
        assert not self._serving.done(), self._serving.exception()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Plane(Granian):
    """`with Plane() as plane`: the gateway of one process, on an event loop in a thread."""

    def __init__(self) -> None:
        super().__init__(Application(self._answer, nullcontext))

    def __enter__(self) -> Self:
        super().__enter__()
        self.gateway = Gateway(_django)
        self.run(self.gateway.start())
        until(lambda: self.gateway.ready)  # on a slow machine it starts before the first poll of the database
        self.run(asyncio.sleep(0))
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.gateway.stop())
        super().__exit__()

    def _answer(self, request: Request) -> Any:
        return self.gateway.answer(request)

    def begin(
        self, path: str, key: str = "", *, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Asked:
        """Send a request and return its future response. `if_none_match="…"` sets a header."""
        given = {"host": "localhost", **headers}
        if key:
            given["authorization"] = f"Bearer {key}"
        if body is not None:
            given.setdefault("content_length", str(len(body)))
        lines = [f"{method} {path} HTTP/1.1", *(f"{n.replace('_', '-')}: {v}" for n, v in given.items())]
        return self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b""))

    def send(self, data: bytes) -> Asked:
        """Send exactly these bytes on a new connection."""
        asked = Asked(self.loop)

        async def ask() -> None:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                asked.connection = writer.transport
                writer.write(data)
                asked.set_result(await answered(reader))
                writer.close()
            except BaseException as error:
                asked.set_exception(error)

        # Keep a reference: a task that waits for a stream has no other one, and could be collected.
        asked.asking = asyncio.run_coroutine_threadsafe(ask(), self.loop)
        return asked

    def get(self, path: str, key: str = "", **headers: Any) -> Answered:
        return self.begin(path, key, **headers).result(PATIENCE_S)

    def post(self, path: str, key: str, document: Any, **headers: Any) -> Answered:
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return self.begin(path, key, method="POST", body=body, **headers).result(PATIENCE_S)

    def snapshot(self, key: str, query: str = "", **headers: str) -> Answered:
        return self.get(f"/router/v1/snapshot{query}", key, **headers)

    def until(self, condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
        """Wait for an effect of another thread."""
        return until(condition, seconds)


def until(condition: Callable[[], T], seconds: float = PATIENCE_S) -> T:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)
    return result


async def answered(reader: asyncio.StreamReader) -> Answered:
    """Return the next response on a connection. Raises `asyncio.IncompleteReadError` if it ends before."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in head[1:-2])}
    body = b""
    if headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readexactly(2)
    else:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Answered(int(head[0].split()[1]), headers, body)


def router_key(environment: str, **options: Any) -> str:
    return issue_key("router", environment, "a router", actor=SYSTEM, **options)[1]


def key_row(text: str) -> Key:
    return Key.objects.get(key_id=text.split("_")[2])


def process_environment(**given: str) -> dict[str, str]:
    """The environment of a process of this instance: its database, its Redis, the code under test; no runner; and
    `given`."""
    return {
        **os.environ,
        "DATABASE_URL": _database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "POINTSMAN_VAR": str(settings.VAR_DIR),
        "EMBEDDED_RUNNER": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **given,
    }


class Server:
    """`manage.py serve` on the test database, as a process. `with Server() as server`.

    program      another script than manage.py
    stderr       where its log goes; by default to that of the tests
    environment  settings
    """

    def __init__(
        self, program: Path = settings.BASE_DIR / "manage.py", stderr: Any = None, **environment: str
    ) -> None:
        self._program = program
        self._stderr = stderr
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = process_environment(**environment)

    def __enter__(self) -> "Server":
        self.process = subprocess.Popen(
            [sys.executable, str(self._program), "serve", "--port", str(self.port)],
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            process_group=0,
        )
        try:
            with httpx.Client(timeout=5) as client:
                until(lambda: self._answers(client), START_S)
        except BaseException:
            self.__exit__()  # otherwise a late server would outlive its test
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(2 * PATIENCE_S)
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def _answers(self, client: httpx.Client) -> bool:
        assert self.process.poll() is None, "the server did not start"
        try:
            return client.get(f"{self.url}/router/v1/snapshot").status_code == 401
        except httpx.HTTPError:
            return False


def signing_key() -> str:
    """The key of this instance for a server in another directory, in the format of `POINTSMAN_SIGNING_KEY`."""
    return base64.b64encode(signing.private_key().private_bytes_raw()).decode()


def _database_url() -> str:
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{database['NAME']}"
    password = f":{database['PASSWORD']}" if database["PASSWORD"] else ""
    place = f"{database['USER']}{password}@{database['HOST']}:{database['PORT']}"
    return f"postgres://{place}/{database['NAME']}"
