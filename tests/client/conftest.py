from collections.abc import Iterator

import pytest

from pointsman.testing import FakeControlPlane
from tests.client.policies import two_stage


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    """A control plane that serves one workload."""
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage())
        yield plane
