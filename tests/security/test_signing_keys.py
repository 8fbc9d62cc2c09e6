"""Rotating the signing key disturbs no router, checkpoint or process."""

import itertools
import json
import re
import threading
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from controlplane.audit import checkpoints, log, notes, tasks, verification
from controlplane.audit.management import key_changes
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from pointsman.errors import SnapshotRefused
from pointsman.sync.signature import PublicKeys
from policies_app.snapshots import cache

pytestmark = pytest.mark.django_db
BODY = b'{"format":1}'


@pytest.fixture(autouse=True)
def own_directory(settings: Any, tmp_path: Path) -> None:
    settings.VAR_DIR, settings.SIGNING_KEY = tmp_path, ""


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("signing_key", *arguments, stdout=out)
    return out.getvalue()


def published() -> list[str]:
    return run("list").split()


def believes(keys: str, signature: str) -> bool:
    try:
        PublicKeys(keys).verify(BODY, signature)
    except SnapshotRefused:
        return False
    return True


def test_during_the_overlap_a_router_with_either_key_accepts_a_snapshot() -> None:
    (old,) = published()
    run("rotate", "--reason", "once a year")
    new, still = published()
    assert still == old
    signature = signing.sign_snapshot(BODY)
    assert believes(old, signature)
    assert believes(new, signature)
    assert believes(f"{old}\n{new}", signature)
    assert not believes(new, signature.replace(new.partition(":")[0], "0" * 16))


def test_after_the_end_of_the_old_key_only_the_new_one_verifies() -> None:
    (old,) = published()
    run("rotate", "--reason", "once a year")
    run("retire", old.partition(":")[0], "--reason", "every router has the new one")
    (new,) = published()
    signature = signing.sign_snapshot(BODY)
    assert (believes(new, signature), believes(old, signature)) == (True, False)


def test_checkpoints_of_the_old_key_still_verify() -> None:
    (old,) = published()
    for number in range(2):
        log.record(actor=SYSTEM, action="test", target=("test", str(number)))
        assert checkpoints.make() is not None
    run("rotate", "--reason", "once a year")
    assert checkpoints.make() is not None
    run("retire", old.partition(":")[0], "--reason", "every router has the new one")
    assert checkpoints.make() is not None
    found = verification.verify()
    assert [f for f in found.findings if f.kind not in ("unrecorded", "missing")] == []
    assert not Entry.objects.filter(action=checkpoints.BAD).exists()


def test_each_change_is_an_entry_with_its_reason_and_no_private_key() -> None:
    (old,) = published()
    run("rotate", "--reason", "once a year")
    run("retire", old.partition(":")[0], "--reason", "every router has the new one")
    entries = list(Entry.objects.order_by("seq"))
    assert [entry.action for entry in entries] == ["signing_key.rotate", "signing_key.retire"]
    assert entries[0].reason == "once a year"
    text = signing.key_file().read_text().strip()
    assert all(text.encode() not in bytes(entry.body) for entry in entries)


def test_the_files_are_readable_by_their_owner_only() -> None:
    (old,) = published()
    run("rotate", "--reason", "once a year")
    run("retire", old.partition(":")[0], "--reason", "done")
    for path in (signing.key_file(), signing.retired_file()):
        assert path.stat().st_mode & 0o777 == 0o600


def test_earlier_snapshots_are_signed_again(db: None) -> None:
    from tests.support import builders

    builders.environment("production")
    before = cache.read_headers()["production"]
    run("rotate", "--reason", "once a year")
    after = cache.read_headers()["production"]
    assert (after.revision, after.signers != before.signers) == (before.revision, True)
    rebuilt = cache.read_environment(after, cache.read_environment(before, None))
    assert rebuilt is not None
    assert rebuilt.header == after
    assert rebuilt.bodies == {}


@pytest.mark.parametrize("key_id", ["0000000000000000", "first"])
def test_unknown_keys_and_the_current_key_cannot_be_ended(key_id: str) -> None:
    with pytest.raises(CommandError):
        run("retire", signing.key_id() if key_id == "first" else key_id, "--reason", "no")
    assert Entry.objects.count() == 0


def test_a_second_rotation_must_wait_for_the_first_to_end() -> None:
    run("rotate", "--reason", "once")
    with pytest.raises(CommandError, match="retire the old one first"):
        run("rotate", "--reason", "twice")


def test_a_rotation_without_its_entry_changes_nothing(monkeypatch: Any) -> None:
    before = published()
    monkeypatch.setattr(log, "record", _fails)
    with pytest.raises(RuntimeError):
        run("rotate", "--reason", "once a year")
    assert published() == before


def _fails(**_: Any) -> None:
    raise RuntimeError


def test_what_a_given_up_key_signed_meanwhile_stays_valid(monkeypatch: Any) -> None:
    """Every process signs with the new key at once, and the entry of the rotation may fail after that."""
    record, made = log.record, list[Checkpoint]()
    record(actor=SYSTEM, action="test", target=("test", "1"))

    def sign_and_fail(**_: Any) -> None:
        monkeypatch.setattr(log, "record", record)
        made.extend(filter(None, [checkpoints.make()]))
        raise RuntimeError

    monkeypatch.setattr(log, "record", sign_and_fail)
    with pytest.raises(RuntimeError):
        run("rotate", "--reason", "once a year")
    (note,) = notes.read_all(made[0].note)
    assert not notes.is_signed(note, [signing.public_bytes()])
    assert notes.is_signed(note, signing.trusted_publics())


def test_the_file_is_replaced_only_once_the_entry_can_be_written(monkeypatch: Any) -> None:
    (old,), head, seen = published(), log.locked_head, []

    def look() -> Any:
        seen.append(published())
        return head()

    monkeypatch.setattr(log, "locked_head", look)
    run("rotate", "--reason", "once a year")
    assert seen == [[old]]


@pytest.mark.django_db(transaction=True)
def test_of_two_rotations_at_once_one_is_refused(monkeypatch: Any) -> None:
    """Both read one key, and the second overwrote the new key of the first."""
    (old,), texts, both_read = published(), signing.private_texts, threading.Barrier(2)

    def private_texts() -> list[str]:
        found = texts()
        with suppress(threading.BrokenBarrierError):
            both_read.wait(0.5)
        return found

    monkeypatch.setattr(signing, "private_texts", private_texts)
    refused: list[CommandError] = []

    def rotate() -> None:
        try:
            run("rotate", "--reason", "once a year")
        except CommandError as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=rotate) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert published()[1:] == [old]
    assert not key_changes.notice()


def test_a_checkpoint_is_signed_by_the_key_that_it_names(monkeypatch: Any) -> None:
    """The file may be replaced between any two reads."""
    log.record(actor=SYSTEM, action="test", target=("test", "1"))
    texts = [signing.new_private_text() for _ in range(2)]
    reads = itertools.cycle(texts)
    monkeypatch.setattr(signing, "kept", lambda *_: next(reads))
    made = checkpoints.make()
    monkeypatch.setattr(signing, "kept", lambda *_: "\n".join(texts))
    assert made is not None
    assert checkpoints.is_genuine(made, Head.objects.get().chain)


def test_keys_from_the_settings_are_printed_for_the_operator(settings: Any) -> None:
    settings.SIGNING_KEY = old = signing.new_private_text()
    printed = run("rotate", "--reason", "once a year")
    found = re.search(r"^(\S+),(\S+)$", printed, re.MULTILINE)
    assert found is not None
    assert found[2] == old
    settings.SIGNING_KEY = found[0]
    assert len(published()) == 2
    assert believes(published()[0], signing.sign_snapshot(BODY))
    assert not signing.key_file().exists()


# --- changed without a command ---------------------------------------------------------------------------------


def with_a_checkpoint(settings: Any) -> str:
    """An instance whose key comes from the environment and has signed something. Returns the key."""
    settings.SIGNING_KEY = old = signing.new_private_text()
    log.record(actor=SYSTEM, action="test", target=("test", "1"))
    assert checkpoints.make() is not None
    return old


def noticed() -> list[tuple[list[str], list[str]]]:
    """(before, after) of each entry."""
    found = []
    for entry in Entry.objects.filter(action="signing_key.noticed").order_by("seq"):
        (change,) = json.loads(bytes(entry.body))["diff"]
        found.append((change["before"], change["after"]))
    return found


def ids() -> list[str]:
    return [line.partition(":")[0] for line in published()]


def test_a_changed_key_in_the_environment_is_recorded_once(settings: Any) -> None:
    with_a_checkpoint(settings)
    assert not key_changes.notice()
    settings.SIGNING_KEY = signing.new_private_text()
    assert key_changes.notice()
    assert not key_changes.notice()
    assert noticed() == [([key_changes.UNKNOWN], ids())]
    assert "POINTSMAN_SIGNING_KEY" in Entry.objects.latest("seq").reason


def test_each_step_of_a_rotation_in_the_environment_is_recorded(settings: Any) -> None:
    old = with_a_checkpoint(settings)
    new, (first,) = signing.new_private_text(), ids()
    steps = [f"{old},{new}", f"{new},{old}", new]
    told = []
    for step in steps:
        settings.SIGNING_KEY = step
        assert key_changes.notice()
        told.append(ids())
    second = told[-1][0]
    assert told == [[first, second], [second, first], [second]]
    assert noticed() == list(zip([[first], *told], told, strict=False))


def test_a_rotation_by_command_is_not_recorded_twice() -> None:
    log.record(actor=SYSTEM, action="test", target=("test", "1"))
    checkpoints.make()
    (old,) = ids()
    run("rotate", "--reason", "once a year")
    assert not key_changes.notice()
    run("retire", old, "--reason", "every router has the new one")
    assert not key_changes.notice()
    signing.keep_private([signing.new_private_text()])  # the file, by hand
    assert key_changes.notice()
    assert "the instance's file" in Entry.objects.latest("seq").reason


def test_a_new_instance_has_no_change_to_record() -> None:
    assert not key_changes.notice()
    assert not Entry.objects.exists()


def test_the_periodic_job_and_the_start_check_the_keys(settings: Any, monkeypatch: Any) -> None:
    with_a_checkpoint(settings)
    settings.SIGNING_KEY = signing.new_private_text()
    tasks.checkpoint()
    assert len(noticed()) == 1
    settings.SIGNING_KEY = signing.new_private_text()
    monkeypatch.setattr("controlplane.server.process.serve", lambda *args: None)
    monkeypatch.setattr("controlplane.server.process.refuse_taken", lambda *args: None)
    monkeypatch.setattr("controlplane.management.commands.serve.connections.close_all", lambda: None)
    call_command("serve", stdout=StringIO())
    assert len(noticed()) == 2
    assert json.loads(bytes(Entry.objects.latest("seq").body))["source"] == "command serve"
