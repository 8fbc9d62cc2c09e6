"""Fixtures of the console's tests. Models are imported late, because this file is read before the settings."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from policies_app.models import Environment, Workload
    from tests.support.people import People


@pytest.fixture
def people(db: None) -> "People":
    """`people("tom", "approver", "operator")` is the browser of tom, logged in, with these roles."""
    from tests.support.people import logged_in

    return logged_in


@pytest.fixture
def production(db: None) -> "Environment":
    from tests.support import builders

    return builders.environment("production", four_eyes=True)


@pytest.fixture
def summaries(production: "Environment") -> "Workload":
    """A workload that production serves at version 1, and that has a version 2."""
    from tests.support import builders
    from tests.support.people import actor_of

    workload = builders.workload("summaries")
    builders.served(production, workload)
    builders.version(workload, actor=actor_of("maria"))
    return workload
