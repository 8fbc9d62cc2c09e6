"""A map from names to small numbers for millions of names, in 15 to 36 bytes each (a dict takes about 150)."""

from array import array
from collections.abc import Hashable

_LEAST = 1 << 10
_FULLEST = 0.6
_BITS = (1 << 64) - 1


class CompactMap:
    """Maps a name to a number from 1 to 255. Stores a 64-bit hash of the name instead of the name.

    Two of ten million names have the same hash with a probability of 1 in 370,000.
    """

    __slots__ = ("_keys", "_used", "_values")

    def __init__(self) -> None:
        self._keys = array("Q", bytes(8 * _LEAST))
        self._values = bytearray(_LEAST)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    def add(self, name: Hashable, value: int = 1) -> bool:
        """Store a new name; return False and change nothing if it is known."""
        at = self._place(key := _key(name))
        if self._keys[at]:
            return False
        self._keys[at], self._values[at] = key, value
        self._used += 1
        if self._used > _FULLEST * len(self._keys):
            self._grow()
        return True

    def take(self, name: Hashable) -> int:
        """Return the name's number once; 0 if it is unknown or already taken."""
        at = self._place(_key(name))
        value, self._values[at] = self._values[at], 0
        return value

    def left(self) -> int:
        """Return how many names were not taken."""
        return self._used - (self._values.count(0) - (len(self._keys) - self._used))

    def _place(self, key: int) -> int:
        keys, last = self._keys, len(self._keys) - 1
        at = key & last
        while keys[at] and keys[at] != key:
            at = (at + 1) & last
        return at

    def _grow(self) -> None:
        keys, values = self._keys, self._values
        self._keys, self._values = array("Q", bytes(16 * len(keys))), bytearray(2 * len(keys))
        for key, value in zip(keys, values, strict=True):
            if key:
                at = self._place(key)
                self._keys[at], self._values[at] = key, value


def _key(name: Hashable) -> int:
    return hash(name) & _BITS or 1  # 0 marks a free place
