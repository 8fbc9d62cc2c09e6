"""A rollout's history as its page shows it."""

from dataclasses import dataclass

from controlplane.core.actors import shown
from rollout_app.console.presenters import stage_name
from rollout_app.engine.states import Event
from rollout_app.models import Rollout, Transition

# For each event, what the history calls it, and its colour.
EVENTS: dict[str, tuple[str, str]] = {
    Event.PROPOSE: ("Proposed", "quiet"),
    Event.AMEND: ("Amended", "quiet"),
    Event.APPROVE: ("Approved", "good"),
    Event.REJECT: ("Rejected", "bad"),
    Event.WITHDRAW_APPROVAL: ("Approval withdrawn", "quiet"),
    Event.CANCEL: ("Cancelled", "quiet"),
    Event.START: ("Started", "live"),
    Event.REVERT: ("Reverted at once", "bad"),
    Event.BREAK_GLASS: ("Started without approval", "bad"),
    Event.ADVANCE: ("Advanced", "live"),
    Event.PAUSE: ("Paused", "warn"),
    Event.RESUME: ("Resumed", "quiet"),
    Event.ROLL_BACK: ("Rolling back", "bad"),
    Event.ABORT: ("Rolling back", "bad"),
    Event.CONFIRM_ROLLBACK: ("Rolled back", "bad"),
    Event.CONFIRM_ABORT: ("Aborted", "bad"),
    Event.COMPLETE: ("Completed", "good"),
}


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One transition in words."""

    transition: Transition
    words: str
    tone: str

    @property
    def who(self) -> str:
        return shown(self.transition.actor_kind, self.transition.actor_label)


def history(rollout: Rollout) -> list[HistoryEntry]:
    """Return the rollout's history, newest first."""
    return [_history_entry(rollout, transition) for transition in rollout.transitions.order_by("-sequence")]


def _history_entry(rollout: Rollout, transition: Transition) -> HistoryEntry:
    event = transition.event
    words, tone = EVENTS.get(event, (event.replace("_", " ").capitalize(), "quiet"))
    if event == Event.ADVANCE and transition.after_stage < len(rollout.stages):
        words = f"Advanced to {stage_name(rollout.stages[transition.after_stage])}"
    if event == Event.APPROVE and transition.actor_kind == "system":
        words = "No approval is required"
    return HistoryEntry(transition, words, tone)
