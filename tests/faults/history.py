"""What happened while faults were injected, as those outside saw it, and what the database says afterwards."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Batch:
    """Outcomes that were reported. Sent again, the same, until they are acknowledged."""

    tasks: int
    acknowledged: bool = False


@dataclass
class Change:
    """A pin or unpin, told from all others by its reason. `revision` is what its 2xx said; 0: there was none."""

    reason: str
    revision: int = 0


@dataclass
class History:
    """Filled by several threads; each list and key has one writer."""

    positions: dict[str, list[tuple[str, int]]] = field(
        default_factory=dict
    )  # router → (epoch, revision) in order
    broken_snapshots: list[str] = field(default_factory=list)  # what was wrong with a 200
    batches: dict[str, Batch] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    bad_input: Counter[int] = field(default_factory=Counter)  # answers to it, by status
    decisions: int = 0
    undecided: int = 0  # decisions without a model


@dataclass(frozen=True)
class Moved:
    """One transition of a rollout, as its row says."""

    rollout: str
    sequence: int
    event: str
    before: tuple[str, int]
    after: tuple[str, int]


@dataclass(frozen=True)
class Recorded:
    """What the database holds at the end."""

    tasks: int  # in the totals
    transitions: list[Moved]
    entries: list[tuple[str, str]]  # (action, reason) of the audit log
    revision: int
    first_revision: int  # before the first change
    audit: list[str] = field(default_factory=list)  # findings of `audit verify`
