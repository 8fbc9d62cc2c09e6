"""What can be done with a rollout now, and why not: asked by the actions, by the page and by the API's `can`.

Each reason is worded once, here or in `approvals`, as the error that the action raises. Who may do it is another
question: roles are checked at the door, and four eyes when somebody approves.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from controlplane.core.errors import (
    ApprovalMissing,
    ApprovalStale,
    Conflict,
    Frozen,
    IllegalMove,
    PointsmanError,
)
from policies_app.actions import served_assignment
from policies_app.models import Assignment, Environment, Model
from rollout_app.actions.approvals import (
    needed_approvals,
    require_an_approval,
    require_same_terms,
    start_approvals,
)
from rollout_app.actions.transitions import active_elsewhere, another_is_active, fresh_environment, legal
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import ACTIVE, APPROVABLE, BY_ITSELF, ENDED, Event, State, words
from rollout_app.models import Rollout

REVERT_WITHIN = timedelta(hours=72)
APPROVE_STAGE = "approve_stage"  # a yes to the next stage: no event of the state machine


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be done now. `by_state`: the rollout is not at a point where it makes sense at all."""

    code: str
    sentence: str
    by_state: bool


@dataclass(frozen=True)
class _Situation:
    """A rollout and what surrounds it, read when a check asks for it."""

    rollout: Rollout
    event: str
    now: datetime

    @property
    def state(self) -> State:
        return State(self.rollout.state)

    @cached_property
    def environment(self) -> Environment:
        return fresh_environment(self.rollout)

    @cached_property
    def assignment(self) -> Assignment:
        return served_assignment(self.rollout.environment_id, self.rollout.workload_id)

    @property
    def next_stage(self) -> int:
        """The stage that it would enter next: the first of a rollout that has not started."""
        return 0 if self.state is State.SCHEDULED else self.rollout.stage + 1


Check = Callable[[_Situation], object]  # raises the PointsmanError that the action raises


def refusals(rollout: Rollout, now: datetime) -> dict[str, Refusal | None]:
    """By event (and `APPROVE_STAGE`): None where it can be done now, else the first reason against it."""
    return {event: refusal(rollout, event, now) for event in _CHECKS}


def refusal(rollout: Rollout, event: str, now: datetime) -> Refusal | None:
    """The first reason against `event`, None where there is none."""
    situation = _Situation(rollout, event, now)
    at_point, conditions = _CHECKS[event]
    for checks, by_state in ((at_point, True), (conditions, False)):
        if error := _first_error(situation, checks):
            return Refusal(error.code, error.detail, by_state)
    return None


def require(rollout: Rollout, event: str, now: datetime) -> None:
    """Raise the first reason against `event`, where there is one."""
    situation = _Situation(rollout, event, now)
    at_point, conditions = _CHECKS[event]
    for check in (*at_point, *conditions):
        check(situation)


def freeze_sentence(environment: Environment, now: datetime) -> str | None:
    """Why nothing starts or advances there now, None without a change freeze."""
    until = environment.frozen_until
    if until is None or not environment.is_frozen(now):
        return None
    because = f" ({environment.freeze_reason})" if environment.freeze_reason else ""
    return (
        f"{environment.name} is frozen until {until:%Y-%m-%d %H:%M} UTC{because}: nothing starts or advances. "
        "A rollback works."
    )


def _first_error(situation: _Situation, checks: Iterable[Check]) -> PointsmanError | None:
    for check in checks:
        try:
            check(situation)
        except PointsmanError as error:
            return error
    return None


# --- is it at the point for it? --------------------------------------------------------------------------


def _in_state(s: _Situation) -> None:
    legal(s.rollout, Event(s.event))


def _approved_or_missing(s: _Situation) -> None:
    if s.state is State.AWAITING_APPROVAL:
        start_approvals(s.rollout)  # says what is missing, which is more help than the state machine's answer


def _has_next_stage(s: _Situation) -> None:
    if s.next_stage >= len(s.rollout.stages):
        raise IllegalMove("It is at its last stage already; what comes next is to complete it.")


def _at_last_stage(s: _Situation) -> None:
    if s.rollout.stage + 1 < len(s.rollout.stages):
        at = Stage.from_dict(s.rollout.stages[s.rollout.stage]).named
        raise IllegalMove(f"It is at {at}, and only the plan's last stage completes. Advance it.")


def _stage_asks_approval(s: _Situation) -> None:
    if s.state not in APPROVABLE or s.next_stage >= len(s.rollout.stages):
        raise IllegalMove(f"No stage is ahead: the rollout is {words(s.state)}.")
    stage = Stage.from_dict(s.rollout.stages[s.next_stage])
    if not stage.approval:
        raise IllegalMove(f"{stage.named.capitalize()} asks for no approval.")
    if _is_approved(s):
        raise IllegalMove(f"{stage.named.capitalize()} is approved already.")


def _is_approved(s: _Situation) -> bool:
    try:
        needed_approvals(s.rollout, s.next_stage)
    except (ApprovalMissing, ApprovalStale):
        return False
    return True


def _completed_lately(s: _Situation) -> None:
    if s.state is not State.COMPLETED or s.rollout.ended_at is None:
        instead = ""
        if s.state in ACTIVE - {State.ROLLING_BACK}:
            instead = ": roll it back"
        elif s.state not in ENDED | ACTIVE:
            instead = ": cancel it"
        raise Conflict(f"Only a completed rollout can be reverted; this one is {words(s.state)}{instead}.")
    if s.now > s.rollout.ended_at + REVERT_WITHIN:
        raise Conflict(
            "It was completed more than 72 hours ago: what it would bring back was not compared with today's "
            "traffic. Propose a rollout to that version."
        )


# --- does anything else keep it from it? -----------------------------------------------------------------


def _start_is_approved(s: _Situation) -> None:
    start_approvals(s.rollout)


def _same_terms(s: _Situation) -> None:
    require_same_terms(s.rollout)


def _no_freeze(s: _Situation) -> None:
    until, sentence = s.environment.frozen_until, freeze_sentence(s.environment, s.now)
    if until and sentence:
        raise Frozen(sentence, until=until.isoformat())


def _next_stage_is_approved(s: _Situation) -> None:
    if Stage.from_dict(s.rollout.stages[s.next_stage]).approval:
        needed_approvals(s.rollout, s.next_stage)


def _same_baseline(s: _Situation) -> None:
    """What the rollout compares with must be what is served."""
    rollout, serves = s.rollout, s.assignment.baseline
    if serves.pk != rollout.baseline_id:
        error = ApprovalStale if s.event in (Event.START, Event.BREAK_GLASS) else Conflict
        raise error(
            f"{rollout.environment.name} now serves version {serves.number} of {rollout.workload.name}, not "
            f"version {rollout.baseline.number} that this rollout starts from; amend the rollout, and it will be "
            "compared with what is served."
        )


def _no_pin(s: _Situation) -> None:
    if model := s.assignment.pin_model:
        raise Conflict(
            f"{s.rollout.workload.name} is pinned to {model} in {s.rollout.environment.name}: a new stage would "
            "reach nobody. Unpin it first."
        )


def _no_other_active(s: _Situation) -> None:
    """For whom the page asks. What decides is the partial unique index."""
    if active_elsewhere(s.rollout):
        raise another_is_active(s.rollout)


def _models_enabled(s: _Situation) -> None:
    """A model may have been disabled since the version was written."""
    names = {entry["model"] for entry in s.rollout.candidate.document["models"].values()}
    enabled = Model.objects.filter(name__in=names, enabled=True).values_list("name", flat=True)
    if missing := sorted(names.difference(enabled)):
        several = len(missing) > 1
        raise Conflict(
            f"Version {s.rollout.candidate.number} uses {', '.join(missing)}, which {'are' if several else 'is'} "
            f"disabled in the catalogue: enable {'them' if several else 'it'}, or write a version without."
        )


def _somebody_approved(s: _Situation) -> None:
    require_an_approval(s.rollout)


def _candidate_not_served(s: _Situation) -> None:
    if s.assignment.baseline_id == s.rollout.candidate_id:
        raise Conflict(f"Version {s.rollout.candidate.number} is served already; cancel the rollout.")


def _is_way_back(s: _Situation) -> None:
    """A revert goes back to what was served before. The revert of a revert would go forward again, at once."""
    if s.rollout.reverts_id is not None and s.environment.four_eyes:
        raise ApprovalMissing(
            f"This rollout is a revert itself: version {s.rollout.baseline.number} is not what was served before it "
            "in quiet, so it takes another person's approval again. Propose a rollout to it, or break the glass there."
        )


def _not_reverted(s: _Situation) -> None:
    given_up = (State.ROLLED_BACK, State.ABORTED)
    if Rollout.objects.filter(reverts=s.rollout).exclude(state__in=given_up).exists():
        raise Conflict("It was reverted already.")
    served = s.assignment.baseline
    if served.pk != s.rollout.candidate_id:
        raise Conflict(
            f"Version {served.number} is served now, not version {s.rollout.candidate.number} that this rollout "
            "brought; revert the rollout that brought it."
        )


_CHECKS: dict[str, tuple[tuple[Check, ...], tuple[Check, ...]]] = {
    event: ((_in_state,), ()) for event in Event if event not in BY_ITSELF
} | {
    Event.AMEND: ((_in_state,), (_candidate_not_served,)),
    Event.WITHDRAW_APPROVAL: ((_in_state, _somebody_approved), ()),
    Event.PROPOSE: ((_in_state,), (_models_enabled,)),
    Event.START: (
        (_approved_or_missing, _in_state),
        (
            _start_is_approved,
            _same_terms,
            _no_freeze,
            _next_stage_is_approved,
            _same_baseline,
            _no_pin,
            _models_enabled,
            _no_other_active,
        ),
    ),
    Event.BREAK_GLASS: ((_in_state,), (_same_baseline, _no_pin, _no_other_active)),
    Event.ADVANCE: (
        (_in_state, _has_next_stage),
        (_no_freeze, _same_baseline, _no_pin, _next_stage_is_approved),
    ),
    Event.COMPLETE: ((_in_state, _at_last_stage), (_same_baseline,)),
    Event.REVERT: ((_completed_lately,), (_not_reverted, _is_way_back)),
    APPROVE_STAGE: ((_stage_asks_approval,), ()),
}
