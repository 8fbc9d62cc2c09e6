"""What a person can do with a rollout from its page: one door per action, each with its role."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from controlplane.access.models import Role
from controlplane.core.errors import NotFound
from controlplane.web.pages import may, person
from rollout_app import actions
from rollout_app.actions.approvals import binding, standing_approval
from rollout_app.actions.rollbacks import REVERT_WITHIN
from rollout_app.engine.states import APPROVABLE, TRANSITIONS, Event, State
from rollout_app.models import Rollout


@dataclass(frozen=True, slots=True)
class Door:
    """`label` is on the button, `about` says what will happen, `said` what has; `event` must be legal."""

    name: str
    label: str
    role: Role
    action: Callable[..., Rollout]
    event: Event | None
    about: str
    said: str
    tone: str = ""  # css of the button


DOORS = {
    door.name: door
    for door in (
        Door(
            "submit",
            "Propose",
            Role.EDITOR,
            actions.submit_rollout,
            Event.PROPOSE,
            "The draft is put forward: it waits for an approval, or where none is asked for it can be started.",
            "Proposed.",
            "pm-primary",
        ),
        Door(
            "approve",
            "Approve",
            Role.APPROVER,
            actions.approve_rollout,
            Event.APPROVE,
            "Your yes is bound to exactly this: the candidate's digest, the baseline, the environment and "
            "the plan. Any change of them voids it.",
            "Approved. An operator can start it now.",
            "pm-primary",
        ),
        Door(
            "reject",
            "Reject",
            Role.APPROVER,
            actions.reject_rollout,
            Event.REJECT,
            "The rollout ends here. A better one is proposed anew.",
            "Rejected.",
            "pm-danger-line",
        ),
        Door(
            "start",
            "Start",
            Role.OPERATOR,
            actions.start_rollout,
            Event.START,
            "The first stage begins: routers get it with their next poll. It advances by itself when the "
            "evidence says that it is safe, and rolls back by itself when it hurts.",
            "Started.",
            "pm-primary",
        ),
        Door(
            "break-glass",
            "Start without approval",
            Role.OPERATOR,
            actions.break_glass_start,
            Event.BREAK_GLASS,
            "For an emergency: the first stage begins though nobody else has agreed, through a freeze too. "
            "The audit log keeps it under your name, as a start without approval.",
            "Started without an approval.",
            "pm-danger-line",
        ),
        Door(
            "approve-stage",
            "Approve the next stage",
            Role.APPROVER,
            lambda rollout, **values: actions.approve_stage(rollout, next_stage(rollout), **values),
            None,
            "The next stage asks for a person's yes. Yours is bound to exactly this: the candidate's digest, "
            "the baseline, the environment, the plan and the stage.",
            "The next stage is approved. It begins when the evidence allows.",
            "pm-primary",
        ),
        Door(
            "advance",
            "Advance",
            Role.OPERATOR,
            actions.advance_rollout,
            Event.ADVANCE,
            "The next stage begins now, without waiting for the evidence that would advance it.",
            "Advanced to the next stage.",
        ),
        Door(
            "complete",
            "Complete",
            Role.OPERATOR,
            actions.complete_rollout,
            Event.COMPLETE,
            "The candidate becomes the baseline now, without waiting for the end of the last stage. From then on "
            "the way back is a revert.",
            "Completed: the candidate is the baseline now.",
        ),
        Door(
            "pause",
            "Pause",
            Role.OPERATOR,
            actions.pause_rollout,
            Event.PAUSE,
            "It stays at this stage: the candidate keeps its share, and nothing advances. The automatic "
            "rollback stays armed.",
            "Paused.",
        ),
        Door(
            "resume",
            "Resume",
            Role.OPERATOR,
            actions.resume_rollout,
            Event.RESUME,
            "The stage's clock goes on, and it may advance again.",
            "Resumed.",
            "pm-primary",
        ),
        Door(
            "roll-back",
            "Roll back",
            Role.OPERATOR,
            actions.roll_back_rollout,
            Event.ROLL_BACK,
            "The baseline is served to everybody again, at once, as a new revision. Nobody's approval is "
            "needed. The page then shows how many routers have confirmed it.",
            "Rolling back: the baseline is served again.",
            "pm-danger",
        ),
        Door(
            "cancel",
            "Cancel",
            Role.EDITOR,
            actions.cancel_rollout,
            Event.CANCEL,
            "The rollout is withdrawn before it moved anything.",
            "Cancelled.",
            "pm-danger-line",
        ),
        Door(
            "revert",
            "Revert",
            Role.OPERATOR,
            actions.revert_rollout,
            None,
            "A new rollout takes everything back to the version that was served before this one, at once.",
            "Reverting: a new rollout goes back to the earlier version.",
            "pm-danger",
        ),
    )
}


def next_stage(rollout: Rollout) -> int:
    """The stage that the rollout would enter next: the first of a ready one."""
    return 0 if rollout.state == State.SCHEDULED else rollout.stage + 1


@dataclass(frozen=True, slots=True)
class Offer:
    """A door that the rollout's state allows, and why this person may not go through it (empty: they may)."""

    door: Door
    address: str
    why_not: str = ""


def door_for(name: str) -> Door:
    try:
        return DOORS[name]
    except KeyError:
        raise NotFound(f"Nobody can {name!r} a rollout; what can be done is on its page.") from None


def offers(request: HttpRequest, rollout: Rollout) -> list[Offer]:
    """Every door that this state allows, each with the reason if it is closed to this person."""
    return [
        Offer(door, reverse("console:act", args=[rollout.pk, door.name]), why_not(request, rollout, door))
        for door in DOORS.values()
        if _is_legal(rollout, door)
    ]


def _is_legal(rollout: Rollout, door: Door) -> bool:
    state, following = State(rollout.state), rollout.stages[rollout.stage + 1 :]
    match door.name:
        case "revert":
            ended = rollout.ended_at
            return state is State.COMPLETED and ended is not None and timezone.now() < ended + REVERT_WITHIN
        case "approve-stage":
            return state in APPROVABLE and _asks(rollout, next_stage(rollout))
        case "advance" if not following:
            return False
        case "complete" if following:
            return False
    return (state, door.event) in TRANSITIONS


def _asks(rollout: Rollout, stage: int) -> bool:
    """Whether the stage asks for an approval that it has not got."""
    asked = stage < len(rollout.stages) and rollout.stages[stage].get("approval")
    return bool(asked) and standing_approval(rollout, stage) is None


def why_not(request: HttpRequest, rollout: Rollout, door: Door) -> str:
    environment = rollout.environment
    if not may(request, door.role, environment.name):
        return f"needs the role {door.role.value} in {environment.name}"
    approves = door.name in ("approve", "approve-stage")
    if approves and not actions.is_somebody_else(rollout, str(person(request).pk)):
        return "you wrote or proposed it, so somebody else must"
    frozen = environment.frozen_until
    if door.event in (Event.START, Event.ADVANCE) and frozen and frozen > timezone.now():
        why = f": {environment.freeze_reason}" if environment.freeze_reason else ""
        return f"{environment.name} is frozen until {frozen:%Y-%m-%d %H:%M} UTC{why}"
    if door.name in ("start", "advance") and _asks(rollout, next_stage(rollout)):
        return "the next stage asks for an approval and has none yet"
    return ""


def may_approve(request: HttpRequest, rollout: Rollout) -> bool:
    """Whether the rollout waits for a yes, to its start or to its next stage, that this person can give."""
    doors = (DOORS[name] for name in ("approve", "approve-stage"))
    return any(_is_legal(rollout, door) and not why_not(request, rollout, door) for door in doors)


def bound(rollout: Rollout, door: Door) -> dict[str, str]:
    """What an approving door's form must carry: the hash of what the person is looking at."""
    stages = {"approve": None, "approve-stage": next_stage(rollout)}
    return {"expected_binding": binding(rollout, stages[door.name])} if door.name in stages else {}


def sheet(rollout: Rollout, door: Door) -> dict[str, Any]:
    """What the door's form says."""
    where = f"{rollout.workload.name} in {rollout.environment.name}"
    return {
        "heading": f"{door.label} v{rollout.baseline.number} → v{rollout.candidate.number} of {where}",
        "about": door.about,
        "button": door.label,
        "danger": "danger" in door.tone,
    }
