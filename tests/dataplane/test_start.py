"""What a process does before its first request."""

import gc


def test_it_excludes_loaded_objects_from_garbage_collection() -> None:
    from controlplane.server import lifespan

    assert gc.get_freeze_count() == 0
    try:
        lifespan._spare_the_garbage_collector()
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
