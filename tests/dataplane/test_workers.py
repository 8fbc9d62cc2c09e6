"""The processes behind one port: how many, what follows one that dies, and how they end."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.core.management import CommandError, call_command

from controlplane.server import workers
from tests.support.plane import PATIENCE_S, until

# A process that answers with its id instead of all that an instance does; it says so when it is asked to drain.
SCRIPT = """
import asyncio, os, signal, sys
import django
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
django.setup()
from controlplane.server import workers
from controlplane.server.http1 import Door
from controlplane.web.replies import Reply

def say(word, number):
    os.write(1, f"{word} {number}\\n".encode())  # in one piece: others say something too

async def serve(listener, parent):
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(workers.DRAIN, lambda: say("drained", os.getpid()))
    door = Door(lambda request: Reply(200, [], b"%d" % os.getpid()))
    await door.open(listener)
    say("open", os.getpid())
    orphan = loop.create_task(workers._once(lambda: os.getppid() != parent, ended))
    await ended.wait()
    orphan.cancel()
    await door.close()

workers.serve, workers.STARTED_AGAIN_S = serve, 0.1
sockets = workers.listeners("127.0.0.1", 0, int(sys.argv[1]))
say("port", sockets[0].getsockname()[1])
workers.Workers(sockets, 0.1).run()
say("over", 0)
"""


class Running:
    def __init__(self, number: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(number)], stdout=subprocess.PIPE, text=True, process_group=0
        )
        self.port = self.hear("port")
        self.pids = {self.hear("open") for _ in range(number)}

    def hear(self, word: str) -> int:
        assert self.process.stdout is not None
        said, _, number = self.process.stdout.readline().strip().partition(" ")
        assert said == word
        return int(number or 0)

    def answering(self) -> int | None:
        """The process that answers, if one does."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while data := client.recv(65_536):
                    answer += data
        except OSError:
            return None
        return int(answer.rpartition(b"\r\n")[2] or 0) or None


@contextmanager
def _running(number: int) -> Iterator[Running]:
    running = Running(number)
    try:
        yield running
    finally:
        for pid in [running.process.pid, *running.pids]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        running.process.wait(PATIENCE_S)


def test_they_share_the_port() -> None:
    with _running(2) as running:
        assert len(running.pids) == 2
        met: set[int | None] = set()
        until(lambda: met.add(running.answering()) or met == running.pids)  # type: ignore[func-returns-value]


def test_one_that_dies_is_replaced() -> None:
    with _running(1) as running:
        (first,) = running.pids
        assert running.answering() == first
        os.kill(first, signal.SIGKILL)
        # What comes meanwhile waits for the one in its place.
        second = running.answering()
        assert second not in (None, first)
        running.pids.add(running.hear("open"))
        assert second in running.pids


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_they_drain_before_they_end(how: signal.Signals) -> None:
    with _running(2) as running:
        running.process.send_signal(how)
        assert {running.hear("drained"), running.hear("drained")} == running.pids
        running.hear("over")
        assert running.process.wait(PATIENCE_S) == 0
        assert running.answering() is None


def test_they_end_with_a_parent_that_was_killed() -> None:
    with _running(1) as running:
        running.process.kill()
        running.process.wait(PATIENCE_S)
        until(lambda: running.answering() is None)


@pytest.mark.parametrize("number", [1, 2])
def test_it_shares_no_port_with_strangers(number: int) -> None:
    (held,) = workers.listeners("127.0.0.1", 0, 1)
    with held, pytest.raises(OSError, match="in use"):
        workers.listeners("127.0.0.1", held.getsockname()[1], number)


def test_a_port_that_is_taken_is_said_in_a_sentence() -> None:
    (held,) = workers.listeners("127.0.0.1", 0, 1)
    with (
        held,
        pytest.raises(CommandError, match=r"Cannot listen on 127\.0\.0\.1:\d+: Address already in use"),
    ):
        call_command("serve", host="127.0.0.1", port=held.getsockname()[1], workers=1)
