"""A small installation for the tests of paths. Imports wait for the fixtures, because settings are not chosen yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.town import Town


@pytest.fixture
def town(transactional_db: None, tmp_path: Path) -> Iterator[Town]:
    """A server as started by `make run`, and one workload that it serves in `production`."""
    from tests.support.town import Town

    with Town(tmp_path) as town:
        yield town
