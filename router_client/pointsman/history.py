"""Recent history of this router: failures of the weakest model, escalated conversations, and units that differ.

All of it is per process and bounded. Nothing takes a lock, because a decision must not wait for another thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from pointsman.costs import NO_PRICES, Prices
from pointsman.mirror_brake import MirrorBrake
from pointsman.recent import Recent

__all__ = ["DifferingUnits", "FailureHistory", "LatchMemory", "Memory", "Window"]

SIZE = 200
_EMPTY = 2


class Window:
    """The last 200 tasks of one workload and endpoint on the policy's weakest model.

    A ring of bytes, each 0 (succeeded), 1 (failed) or 2 (unused). There is no separate sum to keep consistent:
    reading counts the bytes in C, under the interpreter's lock, so the result is always a consistent snapshot.
    """

    __slots__ = ("_ring", "_turn")

    def __init__(self) -> None:
        self._ring = bytearray([_EMPTY]) * SIZE
        self._turn = count()

    def record(self, failed: bool) -> None:
        """Add one task; it replaces the oldest of 200."""
        self._ring[next(self._turn) % SIZE] = failed

    def reading(self) -> tuple[float | None, int]:
        """Return (failure rate 0 … 1, tasks 0 … 200); the rate is None before the first task."""
        ring = bytes(self._ring)
        tasks = SIZE - ring.count(_EMPTY)
        return (ring.count(1) / tasks if tasks else None), tasks


class FailureHistory:
    """The windows of a process: at least the 10,000 most recently used workload-endpoint pairs.

    get   (workload, endpoint) → the pair's window, or None before its first task
    """

    __slots__ = ("_windows", "get")

    def __init__(self, limit: int = 10_000) -> None:
        self._windows: Recent[tuple[str, str], Window] = Recent(limit)
        self.get: Callable[[tuple[str, str]], Window | None] = self._windows.get

    def window(self, workload: str, endpoint: str) -> Window | None:
        """Return the window of a pair, or None before its first task."""
        return self.get((workload, endpoint))

    def record(self, workload: str, endpoint: str, failed: bool) -> None:
        """Add one task that started on the policy's weakest model."""
        key = (workload, endpoint)
        window = self._windows.get(key) or self._windows.put(key, Window())
        window.record(failed)


class LatchMemory:
    """Conversations escalated under a policy with `latch: conversation`; at least the last 100,000."""

    __slots__ = ("_held",)

    def __init__(self, limit: int = 100_000) -> None:
        self._held: Recent[tuple[str, str], bool] = Recent(limit)

    def hold(self, workload: str, conversation: str) -> None:
        """Record that this conversation was escalated and stays with the stronger model."""
        self._held.put((workload, conversation), True)

    def holds(self, workload: str, conversation: str) -> bool:
        """Return whether it was escalated earlier, as far as this process remembers."""
        return self._held.get((workload, conversation)) is not None


class DifferingUnits:
    """Units that have met a differing task under policies with memory; at least the last 100,000.

    From then on their state depends on their arm, so comparing choices no longer shows whether they differ.
    """

    __slots__ = ("_marked", "any")

    def __init__(self, limit: int = 100_000) -> None:
        self._marked: Recent[tuple[str, str], bool] = Recent(limit)
        self.any = False

    def mark(self, rollout: str, unit: str) -> None:
        """Record that this unit has met a task on which the rollout's policies differ."""
        self.any = True
        self._marked.put((rollout, unit), True)

    def holds(self, rollout: str, unit: str) -> bool:
        """Return whether it has, as far as this process remembers."""
        return self.any and self._marked.get((rollout, unit)) is not None


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process remembers between tasks.

    prices   returns the prices of the applied snapshot
    mirrors  stops mirroring if the candidate's model fails or hangs
    """

    history: FailureHistory = field(default_factory=FailureHistory)
    latch: LatchMemory = field(default_factory=LatchMemory)
    differing: DifferingUnits = field(default_factory=DifferingUnits)
    prices: Callable[[], Prices] = lambda: NO_PRICES
    mirrors: MirrorBrake = field(default_factory=MirrorBrake)
