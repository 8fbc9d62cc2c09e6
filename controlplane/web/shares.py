"""A limited amount (memory, places in a queue) of which no sender can take everything.

A sender may hold a small amount as long as there is any left. Beyond that, it may hold at most as much as stays free
for others: one greedy sender gets half of everything, the next half of the rest.
"""

from collections import Counter
from collections.abc import Hashable


class Shared:
    """What senders hold at present. Not locked: use it from one thread."""

    def __init__(self) -> None:
        self.held = 0
        self._held_by: Counter[Hashable] = Counter()

    def has_room(self, sender: Hashable, *, most: int, small: int, more: int = 0) -> bool:
        """Return whether the sender may hold what it holds and `more`, of `most` in total."""
        own, free = self._held_by[sender] + more, most - self.held - more
        return free >= 0 and (own <= small or own <= free)

    def take(self, sender: Hashable, amount: int) -> None:
        self.held += amount
        self._held_by[sender] += amount

    def give_back(self, sender: Hashable, amount: int) -> None:
        self.held -= amount
        self._held_by[sender] -= amount
        if not self._held_by[sender]:
            del self._held_by[sender]  # keeps only senders that hold something
