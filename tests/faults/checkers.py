"""The invariants that hold throughout any fault. A checker returns the violations of its invariant."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from tests.faults.history import Counted, History, Recorded

Checker = Callable[[History, Recorded], list[str]]
ADVANCES = ("advance", "complete")


def revisions_never_fall(history: History, recorded: Recorded) -> list[str]:
    """No router sees a lower revision after a higher one within an epoch."""
    return [
        f"{router} went from revision {before[1]} to {after[1]} of epoch {after[0]}"
        for router, positions in history.positions.items()
        for before, after in pairwise(positions)
        if before[0] == after[0] and after[1] < before[1]
    ]


def snapshots_are_whole(history: History, recorded: Recorded) -> list[str]:
    """Signature, ETag, revision and digests match the body."""
    return list(history.broken_snapshots)


def batches_count_once(history: History, recorded: Recorded) -> list[str]:
    """Every batch is acknowledged, and each is counted exactly once."""
    waiting = [name for name, batch in history.batches.items() if not batch.acknowledged]
    found = [f"batch {name} was never acknowledged" for name in waiting]
    expected = sum(batch.tasks for batch in history.batches.values() if batch.acknowledged)
    if not waiting and recorded.tasks != expected:
        found.append(f"{expected} tasks were acknowledged, {recorded.tasks} are counted")
    return found


def added(routers: Mapping[str, Mapping[str, Counted]]) -> dict[str, Counted]:
    """Sum what all routers recorded, by arm."""
    total: dict[str, Counted] = {}
    for arms in routers.values():
        for arm, counted in arms.items():
            so_far = total.get(arm, Counted())
            total[arm] = Counted(
                so_far.tasks + counted.tasks,
                so_far.successes + counted.successes,
                so_far.cost_nusd + counted.cost_nusd,
            )
    return total


def routers_lose_nothing(history: History, recorded: Recorded) -> list[str]:
    """Every task that a router recorded is counted in its arm, with its success and its cost."""
    return [
        f"{arm}: the routers recorded {counted}, the totals are {recorded.routed.get(arm)}"
        for arm, counted in added(history.routed).items()
        if recorded.routed.get(arm) != counted
    ]


def acknowledged_changes_survive(history: History, recorded: Recorded) -> list[str]:
    reasons = {reason for _, reason in recorded.entries}
    return [
        f"the change {change.reason!r} was answered by a 2xx and has no audit entry"
        for change in history.changes
        if change.acknowledged and change.reason not in reasons
    ]


def changes_and_entries_are_one_to_one(history: History, recorded: Recorded) -> list[str]:
    """Each change has exactly one entry and each entry one change; nothing is done twice."""
    tried = {change.reason for change in history.changes}
    entries = Counter(reason for _, reason in recorded.entries if reason in tried)
    found = [
        f"{number} entries for the change {reason!r}" for reason, number in entries.items() if number > 1
    ]
    publishing = {change.reason for change in history.changes if change.publishes}
    published = sum(number for reason, number in entries.items() if reason in publishing)
    made = recorded.revision - recorded.first_revision
    if made != published:
        found.append(f"{made} revisions were created, but {published} changes are in the audit log")
    return found


def transitions_skip_nothing(history: History, recorded: Recorded) -> list[str]:
    """Transitions of a rollout are numbered without gaps, and each starts in the state where the previous one ended."""
    found: list[str] = []
    for rollout in dict.fromkeys(moved.rollout for moved in recorded.transitions):
        moves = sorted(
            (m for m in recorded.transitions if m.rollout == rollout), key=lambda moved: moved.sequence
        )
        numbers = [moved.sequence for moved in moves]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"rollout {rollout} has transitions {numbers}")
        found += [
            f"rollout {rollout}: transition {after.sequence} begins at {after.before}, not at {before.after}"
            for before, after in pairwise(moves)
            if before.after != after.before
        ]
    return found


def nothing_advances_that_should_not(history: History, recorded: Recorded) -> list[str]:
    """Neither rollout advances: one gets no outcomes at all, the candidate of the other fails most of its tasks."""
    return [
        f"rollout {moved.rollout} did {moved.event}"
        for moved in recorded.transitions
        if moved.event in ADVANCES
    ]


def nobody_approves_their_own(history: History, recorded: Recorded) -> list[str]:
    found = [
        f"an author's own approval was answered by {status}, {number} times"
        for status, number in history.self_approvals.items()
        if not (400 <= status < 500 or status == 503)
    ]
    return [*found, *(f"{approver} approved a rollout of their own" for approver in recorded.approvers)]


def the_audit_log_verifies(history: History, recorded: Recorded) -> list[str]:
    return list(recorded.audit)


def bad_input_is_refused(history: History, recorded: Recorded) -> list[str]:
    """The response is a 4xx, or a 503 while a dependency is unavailable, but never another 5xx."""
    return [
        f"bad input was answered by {status}, {number} times"
        for status, number in history.bad_input.items()
        if not (400 <= status < 500 or status == 503)
    ]


def routers_route(history: History, recorded: Recorded) -> list[str]:
    """Routers decide with the last known good policy, whatever happens to the control plane."""
    found = [f"{history.undecided} decisions had no model"] if history.undecided else []
    return found if history.decisions else [*found, "no decision was made"]


CHECKERS: tuple[Checker, ...] = (
    revisions_never_fall,
    snapshots_are_whole,
    batches_count_once,
    routers_lose_nothing,
    acknowledged_changes_survive,
    changes_and_entries_are_one_to_one,
    transitions_skip_nothing,
    nothing_advances_that_should_not,
    nobody_approves_their_own,
    the_audit_log_verifies,
    bad_input_is_refused,
    routers_route,
)


def violations(history: History, recorded: Recorded) -> list[str]:
    return [f"{checker.__name__}: {found}" for checker in CHECKERS for found in checker(history, recorded)]
