"""Verifying the log of an instance that goes on working."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from controlplane.audit import checkpoints, verification
from controlplane.audit.models import Checkpoint
from controlplane.core.actors import SYSTEM
from policies_app import actions
from tests.support import builders

pytestmark = pytest.mark.django_db(transaction=True)


def _in_another_process() -> None:
    """Change something, and sign the log, on another connection."""

    def work() -> None:
        actions.register_environment("meanwhile", actor=SYSTEM, reason="a new region")
        assert checkpoints.make() is not None
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


@pytest.mark.parametrize("read", ["_checkpoints", "_stored_entries", "_rows_against_notes"])
def test_what_is_written_meanwhile_is_no_finding(
    read: str, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry written after the head was read was "forged", and its row, or its checkpoint, "not in the log"."""
    settings.VAR_DIR = tmp_path
    builders.environment()
    assert checkpoints.make() is not None
    genuine = getattr(verification, read)

    def meanwhile(*given: Any) -> Iterator[Any]:
        _in_another_process()
        return genuine(*given)  # type: ignore[no-any-return]

    with monkeypatch.context() as patched:
        patched.setattr(verification, read, meanwhile)
        found = verification.verify()
    assert [str(finding) for finding in found.findings] == []
    assert Checkpoint.objects.count() == 2
    assert verification.verify().count == found.count + 1
