"""Waits for events in other threads, and lists a router's polls."""

import time
from collections.abc import Callable

from pointsman.testing import FakeControlPlane, Request


def eventually(condition: Callable[[], object], timeout: float = 30.0) -> bool:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.005)
    return False


def polls(plane: FakeControlPlane) -> list[Request]:
    return [request for request in plane.requests if request.path.endswith("/snapshot")]
