"""A gateway with something to serve. Imports wait for the fixtures, because the settings are not chosen before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.plane import Plane, Served


@pytest.fixture
def served(transactional_db: None) -> Served:
    """Return an environment that serves one workload, and a router key for it."""
    from tests.support import builders
    from tests.support.plane import Served, router_key

    environment = builders.environment()
    assignment = builders.served(environment, builders.workload())
    return Served(environment, assignment, router_key(environment.name))


@pytest.fixture
def plane(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plane]:
    """Return a gateway that writes what it hears from routers at once, not every two seconds, so that tests need not
    wait."""
    from policies_app.fleet import writer
    from tests.support.plane import Plane

    monkeypatch.setattr(writer, "FLUSHED_EVERY_S", 0.05)
    with Plane() as plane:
        yield plane
