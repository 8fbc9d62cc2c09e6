"""Argon2: two hashes at once, and the same hashes as Django's."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher

from controlplane.access.sign_in.hashing import AT_ONCE, TwoAtOnceArgon2Hasher


def test_at_most_two_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def slow(self: Argon2PasswordHasher, *args: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr(Argon2PasswordHasher, "verify", slow)
    monkeypatch.setattr(Argon2PasswordHasher, "encode", slow)
    hasher = TwoAtOnceArgon2Hasher()
    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit((hasher.verify, hasher.encode)[number % 2], "a", "b") for number in range(24)]
        assert all(answer.result() for answer in asked)
    assert most == AT_ONCE == 2


def test_a_failed_hash_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(self: Argon2PasswordHasher, *args: str) -> bool:
        raise MemoryError

    monkeypatch.setattr(Argon2PasswordHasher, "verify", out_of_memory)
    for _ in range(AT_ONCE + 1):
        with pytest.raises(MemoryError):
            TwoAtOnceArgon2Hasher().verify("word", "argon2$")


def test_its_hashes_are_djangos() -> None:
    ours, djangos = TwoAtOnceArgon2Hasher(), Argon2PasswordHasher()
    assert djangos.verify("word", ours.encode("word", ours.salt()))
    assert ours.verify("word", djangos.encode("word", djangos.salt()))
    assert not ours.verify("another", djangos.encode("word", djangos.salt()))
