"""Counts in addition to the buckets: all decisions, whether reported or not, and the units' hash cells."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

from pointsman.assignment import Side, WorkloadAssignment
from pointsman.reporting.buckets import BucketKey, minute_text
from pointsman.reporting.metrics import Counter

__all__ = ["CellCounts", "CountKey", "DecidedCounts", "DecisionTallies", "Tally"]


class CountKey(NamedTuple):
    """The key of a count; `minute` and `stage` are as in `BucketKey`."""

    minute: int
    workload: str
    rollout: str | None
    stage: int | None
    arm: str
    version: int

    @classmethod
    def of(cls, key: BucketKey) -> CountKey:
        return cls(key.minute, key.workload, key.rollout, key.stage, key.arm, key.version)

    def as_dict(self) -> dict[str, Any]:
        return {**self._asdict(), "minute": minute_text(self.minute)}


@dataclass(slots=True)
class DecidedCounts:
    """Counts of decisions. `differing` are those on which the policies differ; None if unknown for any."""

    tasks: int = 0
    differing: int | None = 0

    def add(self, tasks: int, differing: int | None) -> None:
        self.tasks += tasks
        self.differing = None if differing is None or self.differing is None else self.differing + differing

    def as_dict(self, key: CountKey) -> dict[str, Any]:
        """Return the protocol's entry of `decided`."""
        return {**key.as_dict(), "tasks": self.tasks, "differing": self.differing}


@dataclass(slots=True)
class CellCounts:
    """Tasks and failures by cell."""

    tasks: dict[int, int] = field(default_factory=dict)
    failures: dict[int, int] = field(default_factory=dict)

    def add(self, cell: int, failed: bool) -> None:
        self.tasks[cell] = self.tasks.get(cell, 0) + 1
        if failed:
            self.failures[cell] = self.failures.get(cell, 0) + 1

    def as_dict(self, key: CountKey) -> dict[str, Any]:
        """Return the protocol's entry of `cells`."""
        tasks, failures = ({str(c): n for c, n in sorted(d.items())} for d in (self.tasks, self.failures))
        return {**key.as_dict(), "tasks": tasks, "failures": failures}


class Tally:
    """The decisions of one side in one minute. `differs` or `unknown` classify a decision, then `hit`
    counts it.
    """

    __slots__ = (
        "_hits",
        "_sent",
        "assignment",
        "differs",
        "hit",
        "moved_at",
        "side",
        "since",
        "unknown",
        "until",
    )

    def __init__(self, assignment: WorkloadAssignment, side: Side, at: float) -> None:
        self.assignment, self.side = assignment, side
        self.since = at // 60 * 60
        self.until = self.since + 60
        self._hits = (Counter(), Counter(), Counter())
        self.hit, self.differs, self.unknown = (counter.hit for counter in self._hits)
        self._sent = [0, 0, 0]
        self.moved_at = monotonic()

    def take(self) -> tuple[int, int, int]:
        """Return (decisions, differing, unknown) since the last call.

        A decision is classified before it counts, and decisions are read first: what was classified meanwhile waits
        for its decision. Otherwise more would differ than were decided, and the control plane would refuse the entry.
        """
        decided, differing, unknown = (
            counter.value - sent for counter, sent in zip(self._hits, self._sent, strict=True)
        )
        taken = decided, min(differing, decided), min(unknown, decided)
        self._sent = [sent + more for sent, more in zip(self._sent, taken, strict=True)]
        if decided:
            self.moved_at = monotonic()
        return taken

    @property
    def key(self) -> CountKey:
        assignment, side = self.assignment, self.side
        minute = int(self.since // 60)
        return CountKey(minute, assignment.name, *assignment.place, side.arm, side.version)


class DecisionTallies:
    """Count all decisions without a lock: a decision costs a lookup and one step of a counter.

    now   side → its tally of the current minute; `turn` creates the next one
    """

    # By now, any thread that had fetched a tally has finished counting into it.
    _KEPT_S = 60.0

    def __init__(self) -> None:
        self.now: dict[Side, Tally] = {}
        self._all: deque[Tally] = deque()

    def turn(self, assignment: WorkloadAssignment, side: Side, at: float) -> Tally:
        """Return the tally for the minute of `at`. Two threads may create one each; both are added up."""
        tally = Tally(assignment, side, at)
        self._all.append(tally)
        self.now[side] = tally
        return tally

    def fold(self, counts: dict[CountKey, DecidedCounts]) -> None:
        """Add the counts since the last call. Only one caller at a time."""
        for _ in range(len(self._all)):
            tally = self._all.popleft()
            decided, differing, unknown = tally.take()
            if decided and tally.side.version:  # 0 is a router's own default, unknown to the control plane
                known = tally.assignment.comparison is not None and not unknown
                counts.setdefault(tally.key, DecidedCounts()).add(decided, differing if known else None)
            idle_s = monotonic() - tally.moved_at
            if idle_s > self._KEPT_S and self.now.get(tally.side) is tally:
                del self.now[tally.side]
            if idle_s <= 2 * self._KEPT_S:
                self._all.append(tally)
