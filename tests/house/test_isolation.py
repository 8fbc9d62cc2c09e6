"""A test leaves nothing in the process's directory that the next test could read."""

import pytest
from django.db import transaction

from controlplane.audit import checkpoints, log
from controlplane.core.actors import SYSTEM


@pytest.mark.django_db
@pytest.mark.parametrize("run", [1, 2])
def test_it_starts_without_a_checkpoint_file(run: int) -> None:
    assert not checkpoints.checkpoint_file().exists()
    with transaction.atomic():
        log.record(actor=SYSTEM, action="test.write", target=("thing", "one"))
    assert checkpoints.make() is not None
    assert checkpoints.checkpoint_file().exists()
