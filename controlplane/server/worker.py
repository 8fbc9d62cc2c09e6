"""What a worker of `serve` does beside answering: it listens to its parent, and limits what only its socket can."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

# `serve` sends it before it asks a worker to end: requests that come now must still be answered.
DRAIN = signal.SIGUSR1
PARENT = "POINTSMAN_SERVE_PID"  # in the environment of `serve`'s workers
PARENT_LOOKED_FOR_EVERY_S = 1.0

# Nothing acknowledged, or no room made, for so long: a client that is gone, or reads nothing. Without a limit it
# holds its connection, and its part of an answer, for as long as it likes.
SILENT_S = 60
LOOKED_FOR_EVERY_S = 0.1


def is_worker() -> bool:
    """Whether this process is a worker of `serve`, and not of another server."""
    return os.environ.get(PARENT) == str(os.getppid())


def listen_to_parent(loop: asyncio.AbstractEventLoop, drain: Callable[[], None]) -> None:
    """Ctrl-C reaches every process of a terminal; here the parent says when to end, after it has said DRAIN."""
    loop.remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(DRAIN, drain)


async def end_with_parent(drain: Callable[[], None]) -> None:
    """A worker whose parent was killed would hold its port, and run jobs, beside the server that takes its place."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_LOOKED_FOR_EVERY_S)
    drain()
    os.kill(os.getpid(), signal.SIGTERM)


async def give_up_on_silent_clients() -> None:
    """Set TCP_USER_TIMEOUT (RFC 5482) on the listening sockets, of which accepted connections inherit it.

    The server opens them after the application has started, and has no setting for it; so they are looked for.
    Linux only: elsewhere the option, and /proc, do not exist.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    while not _limited():
        await asyncio.sleep(LOOKED_FOR_EVERY_S)


def _limited() -> int:
    """How many listening sockets were found and given the limit."""
    return sum(_limit(int(name.name)) for name in Path("/proc/self/fd").iterdir())


def _limit(descriptor: int) -> bool:
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError:
        return False  # no socket, or closed meanwhile
    try:
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
        return bool(listening)
    except OSError:
        return False  # a socket of another kind
    finally:
        listener.detach()  # it stays the server's
