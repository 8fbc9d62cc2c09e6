"""Verifying the log of an instance that goes on working."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from controlplane.access.models import Answer
from controlplane.audit import checkpoints, verification
from controlplane.audit.models import Checkpoint
from controlplane.core.actors import SYSTEM
from policies_app import actions
from tests.support import builders
from tests.support.callers import Caller

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


def _write_during(patched: pytest.MonkeyPatch, read: str) -> None:
    genuine = getattr(verification, read)

    def meanwhile(*given: Any) -> Iterator[Any]:
        _in_another_process()
        return genuine(*given)  # type: ignore[no-any-return]

    patched.setattr(verification, read, meanwhile)


@pytest.mark.parametrize("read", ["_checkpoints", "_stored_entries", "_rows_against_notes"])
def test_what_is_written_meanwhile_is_no_finding(
    read: str, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry written after the head was read was "forged", and its row, or its checkpoint, "not in the log"."""
    settings.VAR_DIR = tmp_path
    builders.environment()
    assert checkpoints.make() is not None
    with monkeypatch.context() as patched:
        _write_during(patched, read)
        found = verification.verify()
    assert [str(finding) for finding in found.findings] == []
    assert Checkpoint.objects.count() == 2
    assert verification.verify().count == found.count + 1


@pytest.mark.parametrize("read", ["_checkpoints", "_stored_entries"])
def test_it_is_no_finding_for_a_request_with_an_idempotency_key_either(
    read: str, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pointsman audit verify` sends one. The request then ran in a transaction: SQLite let nobody write meanwhile, and
    PostgreSQL showed what was written."""
    settings.VAR_DIR = tmp_path
    call = Caller("viewer")
    assert checkpoints.make() is not None
    key = {"Idempotency-Key": "k-1"}
    with monkeypatch.context() as patched:
        _write_during(patched, read)
        first = call("POST", "audit/verification", **key).json()
    assert (first["verified"], first["findings"]) == (True, [])
    again = call("POST", "audit/verification", **key)
    assert again.json()["entries"] == first["entries"] + 1, "an earlier answer is no answer"
    assert not again.has_header("Idempotency-Replayed") and not Answer.objects.exists()
