"""When the watcher polls the database and reads the keys: each has its own interval."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.db import OperationalError
from django.test import override_settings

from policies_app.snapshots import cache, watcher
from policies_app.snapshots.notices import Subscriber
from policies_app.snapshots.watcher import Watcher


class Times:
    """A watcher without a running thread, on a stopped clock. `passed` polls like the thread would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, redis: bool) -> None:
        self.now, self.polls, self.key_reads = 100.0, 0, 0
        monkeypatch.setattr(watcher, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(cache, "read_headers", self._looked)
        keyring: Any = SimpleNamespace(reload=self._read)
        serving: Any = None
        loop: Any = SimpleNamespace(call_soon_threadsafe=lambda call, *given: call(*given))
        with override_settings(REDIS_URL="redis://127.0.0.1" if redis else ""):
            self.watcher = Watcher(serving, keyring)
            self.watcher._loop = loop
        if redis:
            self.subscriber = cast(Subscriber, self.watcher._subscriber)
            self.subscriber.connected = True
        self.watcher.poll()

    def passed(self, seconds: float) -> tuple[int, int]:
        """Return the number of polls and of key reads so far."""
        for _ in range(round(seconds * 20)):
            self.now += 0.05
            self.watcher.poll()
        return self.polls, self.key_reads

    def _looked(self) -> dict[str, cache.SnapshotHeader]:
        self.polls += 1
        return {}

    def _read(self) -> None:
        self.key_reads += 1


def test_it_polls_every_200_ms_without_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    polls, key_reads = Times(monkeypatch, redis=False).passed(4)
    assert 16 <= polls <= 21
    assert 4 <= key_reads <= 6


def test_it_polls_every_two_seconds_while_notices_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, redis=True)
    assert times.passed(1.9)[0] == 1
    assert times.passed(0.2)[0] == 2


def test_it_reads_the_keys_more_often_than_it_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    polls, key_reads = Times(monkeypatch, redis=True).passed(1.8)
    assert (polls, key_reads) == (1, 3)


def test_it_polls_at_once_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, redis=True)
    times.watcher.poke()
    assert times.passed(0.05)[0] == 2


def test_it_polls_every_200_ms_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, redis=True)
    times.subscriber.connected = False
    assert times.passed(1)[0] >= 5


def test_an_unknown_key_triggers_reads_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, redis=True)
    times.watcher._keys_wanted = True
    assert times.passed(0.05) == (1, 1)  # read a moment ago
    assert times.passed(0.1) == (2, 2)


def test_it_retries_what_it_was_told_while_the_database_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, redis=True)
    times.watcher.poke()

    def away() -> dict[str, cache.SnapshotHeader]:
        raise OperationalError("connection refused")

    monkeypatch.setattr(cache, "read_headers", away)
    with pytest.raises(OperationalError):
        times.watcher.poll()
    monkeypatch.setattr(cache, "read_headers", times._looked)
    assert times.passed(0.05)[0] == 2
