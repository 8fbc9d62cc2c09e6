"""Observed tasks as sums by kind of task, with a short record of each in temporary files.

Memory grows with the number of kinds of tasks, not with the number of tasks. The records serve the variance, which is
computed from sums by unit: they are divided by unit into `PARTS` files, so that only one part's units are in memory
at a time. A task takes 29 bytes of a file; a part with less than `_IN_MEMORY` bytes stays in memory.
"""

import struct
from collections.abc import Hashable, Iterator
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import NamedTuple
from zlib import crc32

FOLDS = 5
CLIP = 0.005  # lower propensities count as this, so that no task weighs more than 200
PARTS = 32
MOST_KINDS = 100_000  # kinds of tasks × folds; a task of a further kind is predicted by the mean of all tasks
_IN_MEMORY = 256 * 1024
_record = struct.Struct("<QIBdd")  # unit, slot, flags, weight, cost
_AT_ONCE = 2_048 * _record.size

Key = tuple[Hashable, ...]


class Observation(NamedTuple):
    """One task as input of the estimate.

    keys         the groups that it belongs to, widest first, known before an arm acts
    probability  the probability that it is served as the policy would have, 0 < … ≤ 1
    matched      whether it was
    success, cost_nusd   its outcome; None: unknown
    """

    unit: str
    keys: tuple[Key, ...]
    probability: float
    matched: bool
    success: bool | None
    cost_nusd: int | None


# One stored task: a 64-bit hash of its unit, the index of its slot, its flags, weight and cost. The flags, from the
# lowest bit: matched; whether its cost is known, whether its success is (`KNOWN`, two bits); its success.
Record = tuple[int, int, int, float, float]
MATCHED, KNOWN, GOOD = 1, 1, 8  # `KNOWN` is a shift: (flags >> KNOWN) & 3


class Slot:
    """The sums of one kind of task in one fold.

    keys, fold, seen_by   what the tasks have in common; `seen_by` is the set of policies, as bits, that they tell about
    tasks, clipped        their number, and how many had a propensity below `CLIP`
    outcomes              of the matched tasks, by what is known of them (2: success, 1: cost, 3: both):
        [tasks, successes, cost, and all three weighted]
    """

    __slots__ = ("clipped", "fold", "keys", "outcomes", "seen_by", "tasks")

    def __init__(self, keys: tuple[Key, ...], fold: int, seen_by: int) -> None:
        self.keys, self.fold, self.seen_by = keys, fold, seen_by
        self.tasks = self.clipped = 0
        self.outcomes: list[list[float] | None] = [None] * 4

    def add(self, known: int, success: bool, cost: float, weight: float) -> None:
        sums = self.outcomes[known]
        if sums is None:
            sums = self.outcomes[known] = [0.0] * 6
        sums[0] += 1
        sums[1] += success
        sums[2] += cost
        sums[3] += weight
        sums[4] += weight * success
        sums[5] += weight * cost


class ObservedSums:
    """What one policy's observations add up to. A context manager, because it holds temporary files."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self._numbers: dict[tuple[tuple[Key, ...], int, int], int] = {}
        self._parts = [SpooledTemporaryFile(_IN_MEMORY) for _ in range(PARTS)]  # noqa: SIM115 — closed by `__exit__`

    def __enter__(self) -> "ObservedSums":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            part.close()

    def add(self, one: Observation, seen_by: int = 0) -> None:
        """Add one task. Raises OSError if there is no room for the temporary files."""
        named = one.unit.encode("utf-8", "surrogatepass")
        number = self._number(one.keys, crc32(named) % FOLDS, seen_by)
        slot, weight = self.slots[number], 1 / max(one.probability, CLIP)
        slot.tasks += 1
        slot.clipped += one.probability < CLIP
        flags, cost = 0, 0.0
        if one.matched:
            known = 2 * (one.success is not None) + (one.cost_nusd is not None)
            success, cost = bool(one.success), float(one.cost_nusd or 0)
            slot.add(known, success, cost, weight)
            flags = MATCHED | known << KNOWN | success * GOOD
        unit = int.from_bytes(blake2b(named, digest_size=8).digest(), "little")
        self._parts[unit % PARTS].write(_record.pack(unit, number, flags, weight, cost))

    def records(self, part: int) -> Iterator[Record]:
        """Yield the records of one part. All tasks of a unit are in the same part."""
        file = self._parts[part]
        file.seek(0)
        while content := file.read(_AT_ONCE):
            yield from _record.iter_unpack(content)

    def _number(self, keys: tuple[Key, ...], fold: int, seen_by: int) -> int:
        named = keys, fold, seen_by
        number = self._numbers.get(named)
        if number is None:
            if keys and len(self.slots) >= MOST_KINDS:
                return self._number((), fold, seen_by)
            number = self._numbers[named] = len(self.slots)
            self.slots.append(Slot(*named))
        return number
