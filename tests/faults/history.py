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
    """A change that somebody asked for once, told from all others by its reason.

    publishes     a pin or unpin, which makes a revision; else a pause or resume
    acknowledged  it was answered by a 2xx; else it may be done or not
    """

    reason: str
    publishes: bool = True
    acknowledged: bool = False


@dataclass(frozen=True)
class Counted:
    """Sums of tasks, of one arm."""

    tasks: int = 0
    successes: int = 0
    cost_nusd: int = 0

    def plus(self, *, success: bool, cost_nusd: int) -> "Counted":
        return Counted(self.tasks + 1, self.successes + success, self.cost_nusd + cost_nusd)


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
    self_approvals: Counter[int] = field(default_factory=Counter)  # answers to an author's own yes, by status
    decisions: int = 0
    undecided: int = 0  # decisions without a model
    routed: dict[str, dict[str, Counted]] = field(default_factory=dict)  # router → arm → what it recorded


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

    tasks: int  # of the batches, in the totals
    routed: dict[str, Counted]  # arm → what the routers' outcomes add up to
    transitions: list[Moved]
    approvers: list[str]  # of the rollout that its author tries to approve
    entries: list[tuple[str, str]]  # (action, reason) of the audit log
    revision: int
    first_revision: int  # before the first change
    audit: list[str] = field(default_factory=list)  # findings of `audit verify`
