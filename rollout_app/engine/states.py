"""The rollout's state machine: one table, one function, nothing else. Pure.

    draft ── propose ──▶ awaiting_approval ── approve ──▶ scheduled ── start ──▶ running ── complete ──▶ completed
    awaiting_approval ── reject ──▶ rejected
    awaiting_approval ── break_glass ──▶ running
    awaiting_approval, scheduled ── amend, withdraw_approval ──▶ awaiting_approval
    draft, awaiting_approval, scheduled ── cancel ──▶ cancelled
    draft ── revert ──▶ running
    running ── advance ──▶ running ── pause ──▶ paused ── resume ──▶ running
    running, paused ── roll_back ──▶ rolling_back ── confirm_rollback ──▶ rolled_back
    running, paused ── abort ──▶ rolling_back ── confirm_abort ──▶ aborted

`rolling_back`: the control plane serves the baseline again and waits for the fleet's readback. An abort takes the
same path as a rollback, but a person calls it. Only `paused` leads back to `running`: a rollout that ended stays
ended, and a revert is a new rollout.
"""

from enum import StrEnum


class State(StrEnum):
    DRAFT = "draft"
    AWAITING_APPROVAL = "awaiting_approval"
    REJECTED = "rejected"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    COMPLETED = "completed"
    CANCELLED = "cancelled"


class Event(StrEnum):
    PROPOSE = "propose"
    AMEND = "amend"  # another plan or baseline: earlier approvals no longer match
    APPROVE = "approve"
    REJECT = "reject"
    WITHDRAW_APPROVAL = "withdraw_approval"  # a person withdraws their approval of the start
    CANCEL = "cancel"
    START = "start"
    REVERT = "revert"  # starts a rollout that undoes a completed one
    BREAK_GLASS = "break_glass"  # a start without an approval, by one person; marked in the log
    ADVANCE = "advance"  # to the next stage; the state stays `running`
    PAUSE = "pause"
    RESUME = "resume"
    ROLL_BACK = "roll_back"  # on evidence, or because a person judges the candidate bad
    ABORT = "abort"  # a person stops the rollout
    CONFIRM_ROLLBACK = "confirm_rollback"  # the fleet has confirmed, or ten minutes have passed
    CONFIRM_ABORT = "confirm_abort"
    COMPLETE = "complete"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DRAFT, Event.PROPOSE): State.AWAITING_APPROVAL,
    (State.DRAFT, Event.REVERT): State.RUNNING,
    (State.DRAFT, Event.CANCEL): State.CANCELLED,
    (State.AWAITING_APPROVAL, Event.AMEND): State.AWAITING_APPROVAL,
    (State.AWAITING_APPROVAL, Event.APPROVE): State.SCHEDULED,
    (State.AWAITING_APPROVAL, Event.BREAK_GLASS): State.RUNNING,
    (State.AWAITING_APPROVAL, Event.REJECT): State.REJECTED,
    (State.AWAITING_APPROVAL, Event.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Event.AMEND): State.AWAITING_APPROVAL,
    (State.AWAITING_APPROVAL, Event.WITHDRAW_APPROVAL): State.AWAITING_APPROVAL,
    (State.SCHEDULED, Event.WITHDRAW_APPROVAL): State.AWAITING_APPROVAL,
    (State.SCHEDULED, Event.START): State.RUNNING,
    (State.SCHEDULED, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.ADVANCE): State.RUNNING,
    (State.RUNNING, Event.PAUSE): State.PAUSED,
    (State.RUNNING, Event.COMPLETE): State.COMPLETED,
    (State.RUNNING, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.RUNNING, Event.ABORT): State.ROLLING_BACK,
    (State.PAUSED, Event.RESUME): State.RUNNING,
    (State.PAUSED, Event.ROLL_BACK): State.ROLLING_BACK,
    (State.PAUSED, Event.ABORT): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.CONFIRM_ROLLBACK): State.ROLLED_BACK,
    (State.ROLLING_BACK, Event.CONFIRM_ABORT): State.ABORTED,
}

REVERT_HOURS = 72  # after its completion, in which a rollout can be reverted
READBACK_MINUTES = 10  # of uninterrupted listening, after which a rollback ends without the silent routers

# Some router may serve the candidate. There is at most one such rollout per environment and workload.
ACTIVE = frozenset({State.RUNNING, State.PAUSED, State.ROLLING_BACK})
# The rollout cannot move any more.
ENDED = frozenset({State.REJECTED, State.ROLLED_BACK, State.ABORTED, State.COMPLETED, State.CANCELLED})
# A person or the evidence decided against the candidate.
ENDED_WITHOUT_SUCCESS = frozenset({State.REJECTED, State.ROLLED_BACK, State.ABORTED})
# A later stage can be approved in these states.
APPROVABLE = frozenset({State.SCHEDULED, State.RUNNING, State.PAUSED})
# Not available as actions on a rollout: a revert starts a new rollout, and the readback confirms by itself.
BY_ITSELF = frozenset({Event.REVERT, Event.CONFIRM_ROLLBACK, Event.CONFIRM_ABORT})


class IllegalTransition(Exception):
    """An event that is not possible in the state: `state`, `event`, and what a person can do (`allowed`)."""

    def __init__(self, state: State, event: Event) -> None:
        self.state = state
        self.event = event
        self.allowed = allowed_events(state)
        could = words(", ".join(self.allowed)) or _NOTHING.get(state, "nothing, since it has ended")
        super().__init__(f"A rollout that is {words(state)} cannot {PASSIVE[event]}. Possible now: {could}.")


PASSIVE = {
    Event.PROPOSE: "be proposed",
    Event.AMEND: "be amended",
    Event.APPROVE: "be approved",
    Event.REJECT: "be rejected",
    Event.WITHDRAW_APPROVAL: "have an approval withdrawn",
    Event.CANCEL: "be cancelled",
    Event.START: "be started",
    Event.REVERT: "start as a revert",
    Event.BREAK_GLASS: "be started by break-glass",
    Event.ADVANCE: "be advanced",
    Event.PAUSE: "be paused",
    Event.RESUME: "be resumed",
    Event.ROLL_BACK: "be rolled back",
    Event.ABORT: "be aborted",
    Event.CONFIRM_ROLLBACK: "be confirmed as rolled back",
    Event.CONFIRM_ABORT: "be confirmed as aborted",
    Event.COMPLETE: "be completed",
}
_NOTHING = {
    State.ROLLING_BACK: "nothing by hand; it ends when the routers have confirmed, or after "
    f"{READBACK_MINUTES} minutes",
    State.COMPLETED: f"nothing, since it has ended; it can be reverted for {REVERT_HOURS} hours",
}


def words(name: str) -> str:
    """Return a state or an event as words: rolling_back → rolling back"""
    return name.replace("_", " ")


def allowed_events(state: State) -> tuple[Event, ...]:
    """Return what a person can do in `state`, in the order of the table."""
    return tuple(event for before, event in TRANSITIONS if before is state and event not in BY_ITSELF)


def next_state(state: State, event: Event) -> State:
    """Return the state after `event`. Raises IllegalTransition for a pair that is not in TRANSITIONS."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(state, event) from None
