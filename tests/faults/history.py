"""What clients observed while faults were injected, and what the database contains afterwards."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Batch:
    """A reported batch of outcomes. It is sent again, unchanged, until it is acknowledged."""

    tasks: int
    acknowledged: bool = False


@dataclass
class Change:
    """A change that was requested once, identified by its reason.

    publishes     a pin or unpin, which creates a revision; otherwise a pause or resume
    acknowledged  the response was a 2xx; otherwise it may or may not have been made
    """

    reason: str
    publishes: bool = True
    acknowledged: bool = False


@dataclass(frozen=True)
class Counted:
    """Sums over the tasks of one arm."""

    tasks: int = 0
    successes: int = 0
    cost_nusd: int = 0

    def plus(self, *, success: bool, cost_nusd: int) -> "Counted":
        return Counted(self.tasks + 1, self.successes + success, self.cost_nusd + cost_nusd)


@dataclass
class History:
    """Filled by several threads. Each list and each key has one writer."""

    positions: dict[str, list[tuple[str, int]]] = field(
        default_factory=dict
    )  # router → (epoch, revision) in order
    broken_snapshots: list[str] = field(default_factory=list)  # what was wrong with a response 200
    batches: dict[str, Batch] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    bad_input: Counter[int] = field(default_factory=Counter)  # responses by status
    # Responses to an author's attempts to approve, by status.
    self_approvals: Counter[int] = field(default_factory=Counter)
    decisions: int = 0
    undecided: int = 0  # decisions without a model
    routed: dict[str, dict[str, Counted]] = field(default_factory=dict)  # router → arm → what it recorded


@dataclass(frozen=True)
class Moved:
    """One transition of a rollout, as stored."""

    rollout: str
    sequence: int
    event: str
    before: tuple[str, int]
    after: tuple[str, int]


@dataclass(frozen=True)
class Recorded:
    """What the database contains at the end."""

    tasks: int  # of the batches, in the totals
    routed: dict[str, Counted]  # arm → sums of the routers' outcomes
    transitions: list[Moved]
    approvers: list[str]  # of the rollout that its author tries to approve
    entries: list[tuple[str, str]]  # (action, reason) of the audit log
    revision: int
    first_revision: int  # before the first change
    audit: list[str] = field(default_factory=list)  # findings of `audit verify`
