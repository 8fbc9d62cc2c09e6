"""A bounded memory of what was used lately."""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Recent"]

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A mapping that holds at least the `limit` last used entries and at most twice as many.

    Two generations: when the young one is full it becomes the old one, and the old one is dropped. Whatever
    is read moves up. It takes no lock: each step is one dict operation, atomic in CPython, and a lost race
    costs an entry's promotion, never a wrong value.
    """

    __slots__ = ("_limit", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, or None when the key was never seen or is long out of use."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is not None:
                self.put(key, value)
        return value

    def put(self, key: K, value: V) -> V:
        """Remember the value. Of two threads that put the same new key the first one's value stays; it is
        returned.
        """
        young = self._young
        if len(young) >= self._limit and key not in young:
            self._old, self._young = young, {}
            young = self._young
        return young.setdefault(key, value)

    def __len__(self) -> int:
        return len(self._young.keys() | self._old.keys())
