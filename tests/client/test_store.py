"""The last known good policies on disk."""

import os
from pathlib import Path

import pytest

from pointsman.sync.files import write_whole
from pointsman.sync.store import DiskStore, Received

CHAIN = [
    Received(b'{"format": 1, "note": "line\nbreaks"}', '"e.1.00"', "keyid=a, alg=ed25519, sig=AAAA"),
    Received(b"", None, None),
    Received(bytes(range(256)), '"e.2.00"', None),
]


def test_it_loads_the_snapshot_and_deltas_that_were_saved(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "deep" / "er" / "snapshot")
    store.save(CHAIN)
    assert DiskStore(store.path).load() == CHAIN
    assert store.confirmed_at is not None


def test_it_starts_empty(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "none")
    assert store.load() == []
    assert store.problem is None
    assert store.confirmed_at is None


def test_it_treats_a_file_torn_at_any_byte_as_absent(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "snapshot")
    store.save(CHAIN)
    whole = store.path.read_bytes()
    for length in range(len(whole)):
        store.path.write_bytes(whole[:length])
        assert store.load() == []
        assert store.problem is not None


def test_it_treats_a_file_with_any_byte_changed_as_absent(tmp_path: Path) -> None:
    store = DiskStore(tmp_path / "snapshot")
    store.save(CHAIN)
    whole = bytearray(store.path.read_bytes())
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        store.path.write_bytes(damaged)
        assert store.load() == []


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snapshot"
    write_whole(path, b"old")

    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["snapshot"]


def test_it_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    DiskStore(tmp_path / "snapshot").save(CHAIN)
    assert (tmp_path / "snapshot").stat().st_mode & 0o077 == 0


def test_it_explains_what_is_wrong_with_an_invalid_file(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_text("something else\n")
    store = DiskStore(path)
    assert store.load() == []
    assert "not a pointsman store" in (store.problem or "")
