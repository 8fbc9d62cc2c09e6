"""The origin of a change: set once per request, command or task, and read by every audit entry written within it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from controlplane.core.ids import uuid7


@dataclass(frozen=True, slots=True)
class Origin:
    """`request_id` links log lines and audit entries. `source` is the entry point and address: `api 10.0.0.7`."""

    request_id: str = ""
    source: str = ""


_origin: ContextVar[Origin] = ContextVar("origin", default=Origin())  # noqa: B039 — frozen


def current() -> Origin:
    return _origin.get()


@contextmanager
def request_context(request_id: str = "", source: str = "") -> Iterator[Origin]:
    """Set the origin of everything written inside the block. Without an id, a new one is created."""
    origin = Origin(request_id or str(uuid7()), source)
    token = _origin.set(origin)
    try:
        yield origin
    finally:
        _origin.reset(token)
