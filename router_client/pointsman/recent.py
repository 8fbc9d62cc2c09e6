"""A bounded mapping of recently used entries."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that holds at least the `limit` most recently used entries and at most twice as many.

    It has two generations: when the young one is full it replaces the old one, which is dropped. Reading an entry
    moves it to the young generation. No lock is needed: each step is one dict operation, atomic in CPython, and a
    lost race only costs an entry's promotion, never a wrong value.
    """

    __slots__ = ("_limit", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value, or None if the key is unknown or was not used for a long time."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> V:
        """Store the value and return the stored one. If two threads put the same new key, the first value stays."""
        young = self._young
        if len(young) >= self._limit and key not in young:
            self._old, self._young = young, {}
            young = self._young
        return young.setdefault(key, value)

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
