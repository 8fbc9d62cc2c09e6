"""What a process does before its first request."""

import gc

import pytest

from controlplane.access.keyring import Caller, Keyring
from controlplane.core.errors import Unavailable
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.serving import SnapshotService


def test_it_excludes_loaded_objects_from_garbage_collection() -> None:
    from controlplane.server import lifespan

    assert gc.get_freeze_count() == 0
    try:
        lifespan._spare_the_garbage_collector()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


def test_it_does_not_say_that_an_environment_is_gone_before_it_has_read_any() -> None:
    """The database stopped answering after the keys were read. A router takes 404 for a wrong address."""
    caller = Caller(1, "router", "k", "production", "", None, None, None, float("inf"))
    with pytest.raises(Unavailable, match="not been read yet"):
        SnapshotService(Keyring(), FleetBuffer()).environment_of(caller)
