"""A worker's duties besides serving: follow its parent's signals, and set a timeout on its sockets."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

# Sent by `serve` before it asks a worker to end: requests that arrive now must still be answered.
DRAIN = signal.SIGUSR1
PARENT = "POINTSMAN_SERVE_PID"  # in the environment of `serve`'s workers
PARENT_LOOKED_FOR_EVERY_S = 1.0

# A client that acknowledges nothing, or makes no room in its window, for this long is gone or not reading. Without a
# limit it would hold its connection, and its part of a response, for as long as it likes.
SILENT_S = 60
LOOKED_FOR_EVERY_S = 0.1


def is_worker() -> bool:
    """Return whether this process is a worker of `serve`, not of another server."""
    return os.environ.get(PARENT) == str(os.getppid())


def listen_to_parent(loop: asyncio.AbstractEventLoop, drain: Callable[[], None]) -> None:
    """Handle DRAIN, and ignore Ctrl-C, which reaches every process of a terminal: the parent decides when to end."""
    loop.remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    loop.add_signal_handler(DRAIN, drain)


async def end_with_parent(drain: Callable[[], None]) -> None:
    """Shut down if the parent was killed. Otherwise the worker would keep its port, and run jobs, next to the new
    server."""
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_LOOKED_FOR_EVERY_S)
    drain()
    os.kill(os.getpid(), signal.SIGTERM)


async def give_up_on_silent_clients() -> None:
    """Set TCP_USER_TIMEOUT (RFC 5482) on the listening sockets; accepted connections inherit it.

    The server opens the sockets after the application starts, and has no setting for the option, so this searches for
    them. Linux only: other systems have neither the option nor /proc.
    """
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    while not _limited():
        await asyncio.sleep(LOOKED_FOR_EVERY_S)


def _limited() -> int:
    """Set the option on all listening sockets. Return how many there were."""
    return sum(_limit(int(name.name)) for name in Path("/proc/self/fd").iterdir())


def _limit(descriptor: int) -> bool:
    try:
        listener = socket.socket(fileno=descriptor)
    except OSError:
        return False  # not a socket, or closed in the meantime
    try:
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listening:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_S * 1000)
        return bool(listening)
    except OSError:
        return False  # another kind of socket
    finally:
        listener.detach()  # the server still owns it
