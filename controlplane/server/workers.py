"""The processes behind one port: started, watched, told to drain before they end.

Each has a listening socket of its own, so that the kernel spreads connections over them, and the parent keeps
them all: what a process that died had not accepted is answered by the one in its place.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvloop

log = logging.getLogger(__name__)

BACKLOG = 4_096  # connections that wait to be accepted
FILES = 65_536  # open at once: a connection is one
STARTED_AGAIN_S = 3.0  # after a process ended by itself
KILLED_AFTER_S = 60  # a process that was asked to end
# Sent to a process before it is asked to end: what comes now must still be answered.
DRAIN = signal.SIGUSR1


def listeners(host: str, port: int, number: int) -> list[socket.socket]:
    """So many sockets on one port. Raises `OSError` when somebody else has it."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    first = _bound(family, address, shared=False)
    if number == 1:
        return [_listening(first)]
    # With SO_REUSEPORT alone a second server would quietly share the port of the first.
    address = first.getsockname()
    first.close()
    return [_listening(s) for s in [_bound(family, address, shared=True) for _ in range(number)]]


def _bound(family: int, address: Any, *, shared: bool) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def _listening(found: socket.socket) -> socket.socket:
    found.listen(BACKLOG)
    found.setblocking(False)
    return found


class Workers:
    """`run` returns when all have ended, after SIGTERM or SIGINT."""

    def __init__(self, sockets: list[socket.socket], grace_s: float) -> None:
        self._sockets = sockets
        self._grace_s = grace_s
        self._alive: dict[int, int] = {}  # pid → which of the sockets
        self._ending = False

    def run(self) -> None:
        _raise_limit()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        for place in range(len(self._sockets)):
            self._start(place)
        while self._alive:
            pid, status = os.wait()
            place = self._alive.pop(pid, -1)
            if place < 0 or self._ending:
                continue
            log.error("a server process ended by itself (%s); another takes its place", _how(status))
            time.sleep(STARTED_AGAIN_S)
            if not self._ending:
                self._start(place)

    def _start(self, place: int) -> None:
        # A signal that comes between the fork and the note of it would miss the new process.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        pid = os.fork()
        if pid == 0:
            _work(self._sockets.pop(place), self._sockets)
        self._alive[pid] = place
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def _end(self, *_: Any) -> None:
        """First let them drain, then ask them to end, then make them."""
        if self._ending:
            return
        self._ending = True
        self._tell(DRAIN)
        signal.signal(signal.SIGALRM, self._end_now)
        signal.setitimer(signal.ITIMER_REAL, max(self._grace_s, 0.001))

    def _end_now(self, *_: Any) -> None:
        for found in self._sockets:
            found.close()
        self._tell(signal.SIGTERM)
        signal.signal(signal.SIGALRM, lambda *_: self._tell(signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, KILLED_AFTER_S)

    def _tell(self, number: int) -> None:
        for pid in self._alive:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def _work(listener: socket.socket, others: list[socket.socket]) -> None:
    """What a process does, from its fork to its end."""
    status = 1
    try:
        for number in (DRAIN, signal.SIGINT):  # Ctrl-C reaches every process; the parent says when to end
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
        for other in others:
            other.close()
        uvloop.run(serve(listener, os.getppid()))
        status = 0
    except BaseException:
        log.exception("a server process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


async def serve(listener: socket.socket, parent: int) -> None:
    """Answer what comes to the socket, until SIGTERM or until the parent is gone."""
    from controlplane.server.http1 import Door
    from controlplane.server.lifespan import Life, gateway

    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with Life():
        door = Door(gateway.answer)

        def drain() -> None:
            gateway.drain()
            door.closing = True

        loop.add_signal_handler(DRAIN, drain)
        await door.open(listener)
        orphan = loop.create_task(_once(lambda: os.getppid() != parent, ended))
        await ended.wait()
        orphan.cancel()
        gateway.drain()
        await door.close()


async def _once(condition: Callable[[], bool], event: asyncio.Event) -> None:
    while not condition():
        await asyncio.sleep(1)
    event.set()


def _raise_limit() -> None:
    """Many systems begin with 1,024 open files, which is as many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else signal.Signals(-code).name
