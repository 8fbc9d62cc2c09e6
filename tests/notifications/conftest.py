"""A receiver whose answers a test sets, and an allow list that contains it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.receivers import Listener


@pytest.fixture
def listener(settings: Any) -> "Iterator[Listener]":
    from tests.support.receivers import Listener

    settings.WEBHOOK_ALLOWED = ["127.0.0.1"]
    with Listener() as listener:
        yield listener
