"""A gateway and something that it serves. Imports wait for the fixtures: settings are not chosen yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.plane import Plane, Served


@pytest.fixture
def served(transactional_db: None) -> Served:
    """An environment that serves one workload, and a router's key for it."""
    from tests.support import builders
    from tests.support.plane import Served, router_key

    environment = builders.environment()
    assignment = builders.served(environment, builders.workload())
    return Served(environment, assignment, router_key(environment.name))


@pytest.fixture
def plane(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """A gateway that writes down at once what it heard of its routers, not every two seconds: tests wait for it."""
    from policies_app.fleet import writer
    from tests.support.plane import Plane

    monkeypatch.setattr(writer, "FLUSHED_EVERY_S", 0.05)
    with Plane() as plane:
        yield plane
