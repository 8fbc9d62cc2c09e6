"""What a person can do with a rollout from its page: each action with its role, button and texts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.http import HttpRequest
from django.urls import reverse

from controlplane.access.models import Role
from controlplane.core import clock
from controlplane.core.errors import NotFound
from controlplane.web.pages import may, person
from policies_app.console.lookups import may_edit
from rollout_app import actions
from rollout_app.actions.approvals import binding, number_needed
from rollout_app.engine.states import Event, State
from rollout_app.models import Rollout


@dataclass(frozen=True, slots=True)
class RolloutAction:
    """An action. `label` is on the button, `about` says what will happen, `said` what has happened.

    `event` is the key in `actions.refusals`; None: the approval of a stage.
    """

    name: str
    label: str
    role: Role
    action: Callable[..., Rollout]
    event: Event | None
    about: str
    said: str
    tone: str = ""  # css class of the button

    @property
    def refused_as(self) -> str:
        """The key in `actions.refusals`."""
        return self.event or actions.APPROVE_STAGE

    @property
    def is_approval(self) -> bool:
        """Whether it is an approval, of the start or of a stage."""
        return self.name in ("approve", "approve-stage")

    @property
    def shows_ahead(self) -> bool:
        """Whether it gives the candidate traffic or approves that. Its form then shows what would move."""
        return self.name in ("submit", "approve", "start", "break-glass", "approve-stage", "advance")


ROLLOUT_ACTIONS = {
    action.name: action
    for action in (
        RolloutAction(
            "submit",
            "Propose",
            Role.EDITOR,
            actions.submit_rollout,
            Event.PROPOSE,
            "This proposes the draft. If the environment requires an approval, the rollout waits for it; "
            "otherwise an operator can start it.",
            "Proposed.",
            "pm-primary",
        ),
        RolloutAction(
            "approve",
            "Approve",
            Role.APPROVER,
            actions.approve_rollout,
            Event.APPROVE,
            "You approve exactly what you see here: this candidate, this baseline, this environment and this "
            "plan. If any of them changes, your approval is void.",
            "Approved. An operator can start it now.",
            "pm-primary",
        ),
        RolloutAction(
            "reject",
            "Reject",
            Role.APPROVER,
            actions.reject_rollout,
            Event.REJECT,
            "This ends the rollout. To try again, propose a new one.",
            "Rejected.",
            "pm-danger-line",
        ),
        RolloutAction(
            "withdraw-approval",
            "Withdraw your approval",
            Role.APPROVER,
            actions.withdraw_approval,
            Event.WITHDRAW_APPROVAL,
            "Your approval no longer counts, and the rollout waits for one again.",
            "Your approval is withdrawn.",
        ),
        RolloutAction(
            "start",
            "Start",
            Role.OPERATOR,
            actions.start_rollout,
            Event.START,
            "The first stage begins, and routers receive it with their next poll. The rollout advances by "
            "itself when the evidence shows that it is safe, and rolls back by itself when it does harm.",
            "Started.",
            "pm-primary",
        ),
        RolloutAction(
            "break-glass",
            "Start without approval",
            Role.OPERATOR,
            actions.break_glass_start,
            Event.BREAK_GLASS,
            "For emergencies: the first stage begins without a second person's approval, even during a change "
            "freeze. The audit log records it under your name as a start without approval.",
            "Started without an approval.",
            "pm-danger-line",
        ),
        RolloutAction(
            "approve-stage",
            "Approve the next stage",
            Role.APPROVER,
            lambda rollout, **values: actions.approve_stage(rollout, actions.next_stage(rollout), **values),
            None,
            "The next stage requires an approval. You approve exactly what you see here: this candidate, this "
            "baseline, this environment, this plan and this stage.",
            "The next stage is approved. It begins when the evidence allows it.",
            "pm-primary",
        ),
        RolloutAction(
            "advance",
            "Advance",
            Role.OPERATOR,
            actions.advance_rollout,
            Event.ADVANCE,
            "The next stage begins now, without waiting for the evidence that it normally needs.",
            "Advanced to the next stage.",
        ),
        RolloutAction(
            "complete",
            "Complete",
            Role.OPERATOR,
            actions.complete_rollout,
            Event.COMPLETE,
            "The candidate becomes the baseline now, before the last stage has reached its minimum time. After "
            "that, only a revert goes back.",
            "Completed: the candidate is the baseline now.",
        ),
        RolloutAction(
            "pause",
            "Pause",
            Role.OPERATOR,
            actions.pause_rollout,
            Event.PAUSE,
            "The rollout stays at this stage. The candidate keeps its share of traffic, and the automatic "
            "rollback stays active.",
            "Paused.",
        ),
        RolloutAction(
            "resume",
            "Resume",
            Role.OPERATOR,
            actions.resume_rollout,
            Event.RESUME,
            "The stage's clock runs again, and the rollout can advance.",
            "Resumed.",
            "pm-primary",
        ),
        RolloutAction(
            "roll-back",
            "Roll back",
            Role.OPERATOR,
            actions.roll_back_rollout,
            Event.ROLL_BACK,
            "All traffic goes back to the baseline at once. This needs no approval. The page then shows how "
            "many routers have confirmed it.",
            "Rolling back: all traffic goes to the baseline.",
            "pm-danger",
        ),
        RolloutAction(
            "abort",
            "Abort",
            Role.OPERATOR,
            actions.abort_rollout,
            Event.ABORT,
            "All traffic goes back to the baseline at once, as in a rollback. Use it to stop a rollout for a "
            "reason other than harm by the candidate.",
            "Aborting: all traffic goes to the baseline.",
            "pm-danger-line",
        ),
        RolloutAction(
            "amend",
            "Change plan or time",
            Role.EDITOR,
            actions.amend_rollout,
            Event.AMEND,
            "You propose it again with another plan or time, compared with what is served now. Earlier approvals "
            "become void.",
            "Changed and proposed again.",
        ),
        RolloutAction(
            "cancel",
            "Cancel",
            Role.EDITOR,
            actions.cancel_rollout,
            Event.CANCEL,
            "This withdraws the rollout. It has not moved any traffic.",
            "Cancelled.",
            "pm-danger-line",
        ),
        RolloutAction(
            "revert",
            "Revert",
            Role.OPERATOR,
            actions.revert_rollout,
            Event.REVERT,
            "A new rollout returns all traffic at once to the version that was served before this rollout.",
            "Reverting: a new rollout goes back to the earlier version.",
            "pm-danger",
        ),
    )
}


def said_of(action: RolloutAction, moved: Rollout) -> str:
    """Return what has happened. An approval may be the first of two, or be followed by a scheduled start."""
    if action.event is not Event.APPROVE:
        return action.said
    if moved.state == State.AWAITING_APPROVAL:
        return "Your approval is recorded. Another approver must approve it, too."
    return "Approved. It starts at its time." if moved.scheduled_for else action.said


@dataclass(frozen=True, slots=True)
class ActionOffer:
    """An action that the rollout's state allows. `refusal`: why this person cannot take it; empty if they can."""

    action: RolloutAction
    address: str
    refusal: str = ""


def action_named(name: str) -> RolloutAction:
    try:
        return ROLLOUT_ACTIONS[name]
    except KeyError:
        raise NotFound(f"A rollout has no action {name!r}. Its page lists what can be done.") from None


def offers(request: HttpRequest, rollout: Rollout) -> list[ActionOffer]:
    """Return all actions that the state allows, each with the reason if this person cannot take it."""
    refused = actions.refusals(rollout, clock.now())
    # Asked at most once, and not if no action needs it.
    edits = cache(lambda: may_edit(request, rollout.workload))
    return [
        ActionOffer(
            action,
            reverse("console:act", args=[rollout.pk, action.name]),
            why_not(request, rollout, action, refused[action.refused_as], edits),
        )
        for action in ROLLOUT_ACTIONS.values()
        if not _is_hidden(refused[action.refused_as]) and not _is_not_theirs(request, rollout, action)
    ]


def _is_hidden(refusal: actions.Refusal | None) -> bool:
    return refusal is not None and refusal.by_state


def _is_not_theirs(request: HttpRequest, rollout: Rollout, action: RolloutAction) -> bool:
    """Return whether the action withdraws an approval that this person never gave or already withdrew."""
    if action.event is not Event.WITHDRAW_APPROVAL:
        return False
    own = rollout.approvals.filter(stage=None, withdrawn_at=None, approver_user_id=str(person(request).pk))
    return not own.exists()


def why_not(
    request: HttpRequest,
    rollout: Rollout,
    action: RolloutAction,
    refusal: actions.Refusal | None,
    edits: Callable[[], bool] | None = None,
) -> str:
    """Return why this person cannot take the action; empty if they can. `edits`: `may_edit`, asked once for many."""
    environment = rollout.environment
    if not may(request, action.role, environment.name):
        return f"needs the role {action.role.value} in {environment.name}"
    if action.role is Role.EDITOR and not (edits() if edits else may_edit(request, rollout.workload)):
        return f"only editors of the team {rollout.workload.owner.name} can do it"
    if action.is_approval and not actions.is_somebody_else(rollout, str(person(request).pk)):
        return "you wrote or proposed it, so somebody else must approve it"
    if refusal is None and action.is_approval and _has_approved(request, rollout, action):
        return "you have approved it already; another approver is needed"
    return refusal.sentence.rstrip(".") if refusal else ""


def _has_approved(request: HttpRequest, rollout: Rollout, action: RolloutAction) -> bool:
    """Return whether this person's approval is one of several that are needed."""
    if number_needed(rollout) < 2:
        return False
    stage = None if action.event is Event.APPROVE else actions.next_stage(rollout)
    own = str(person(request).pk)
    # The role, and that they are no contributor, were checked before. No query per rollout: home asks for many.
    given = [one for one in rollout.approvals.all() if one.stage == stage and one.withdrawn_at is None]
    return any(one.approver_user_id == own and one.binding == binding(rollout, stage) for one in given)


def may_approve(
    request: HttpRequest, rollout: Rollout, now: datetime, known: actions.Surroundings | None = None
) -> bool:
    """Return whether this person can give an approval that the rollout waits for, of its start or its next stage."""
    for action in (ROLLOUT_ACTIONS[name] for name in ("approve", "approve-stage")):
        refusal = actions.refusal(rollout, action.refused_as, now, known)
        if refusal is None and not why_not(request, rollout, action, refusal):
            return True
    return False


def approval_binding(rollout: Rollout, action: RolloutAction) -> dict[str, str]:
    """Return the hash that an approval's form must carry, of what the person is looking at. Empty for other actions."""
    stages = {"approve": None, "approve-stage": actions.next_stage(rollout)}
    return {"expected_binding": binding(rollout, stages[action.name])} if action.name in stages else {}


def form_texts(rollout: Rollout, action: RolloutAction) -> dict[str, Any]:
    """Return heading, explanation and button of the action's form."""
    versions = f"v{rollout.baseline.number} → v{rollout.candidate.number}"
    return {
        "heading": f"{action.label}: {rollout.workload.name} {versions} in {rollout.environment.name}",
        "about": action.about,
        "button": action.label,
        "danger": "danger" in action.tone,
    }
