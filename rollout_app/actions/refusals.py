"""Which events are possible for a rollout now, and if not, why. Used by the actions, the page and the API's `can`.

Each refusal is worded in one place, here or in `approvals`, as the error that the action raises. This module does not
check who may act: views check roles, and the approval actions check four eyes.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from uuid import UUID

from controlplane.core.errors import (
    ApprovalMissing,
    ApprovalStale,
    Conflict,
    Frozen,
    IllegalMove,
    PointsmanError,
)
from policies_app.actions import served_assignment
from policies_app.catalogue.usage import refuse_disabled_models
from policies_app.models import Assignment, Environment, Model
from rollout_app.actions.approvals import (
    Given,
    Terms,
    given_to,
    needed_approvals,
    require_an_approval,
    require_same_terms,
    terms_now,
)
from rollout_app.actions.transitions import (
    another_is_active,
    four_eyes_apply,
    legal,
)
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import (
    ACTIVE,
    APPROVABLE,
    BY_ITSELF,
    ENDED,
    REVERT_HOURS,
    Event,
    State,
    words,
)
from rollout_app.models import Rollout

APPROVE_STAGE = "approve_stage"  # approve the next stage; not an event of the state machine


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something cannot be done now. `by_state`: the rollout's state or stage rules it out."""

    code: str
    sentence: str
    by_state: bool


class Surroundings:
    """What the checks of these rollouts need to know. Each kind is read when a check first needs it, for all rollouts
    at once."""

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts = rollouts
        places = [(rollout.environment_id, rollout.workload_id) for rollout in rollouts]
        self._here = {
            "environment__in": {environment for environment, _ in places},
            "workload__in": {workload for _, workload in places},
        }

    @cached_property
    def environments(self) -> Mapping[int, Environment]:
        return Environment.objects.in_bulk(self._here["environment__in"])

    @cached_property
    def assignments(self) -> Mapping[tuple[int, int], Assignment]:
        """By environment and workload."""
        served = Assignment.objects.filter(**self._here).select_related("baseline")
        rows = served.defer("fragment", "baseline__canonical")
        return {(row.environment_id, row.workload_id): row for row in rows}

    @cached_property
    def enabled_models(self) -> frozenset[str]:
        return frozenset(Model.objects.filter(enabled=True).values_list("name", flat=True))

    @cached_property
    def active(self) -> frozenset[tuple[int, int]]:
        """The environments and workloads with a rollout under way."""
        under_way = Rollout.objects.filter(**self._here, state__in=[state.value for state in ACTIVE])
        return frozenset(under_way.order_by().values_list("environment_id", "workload_id"))

    @cached_property
    def given(self) -> Given:
        return given_to(self._rollouts)

    @cached_property
    def terms(self) -> Mapping[int, Terms]:
        """By workload."""
        return terms_now(self._rollouts)

    @cached_property
    def reverted(self) -> frozenset[UUID | None]:
        """The rollouts that a revert undoes or has undone."""
        reverts = Rollout.objects.filter(reverts__in=[rollout.pk for rollout in self._rollouts])
        given_up = (State.ROLLED_BACK, State.ABORTED)
        return frozenset(reverts.exclude(state__in=given_up).values_list("reverts", flat=True))


@dataclass(frozen=True, slots=True)
class _Situation:
    rollout: Rollout
    event: str
    now: datetime
    known: Surroundings

    @property
    def place(self) -> tuple[int, int]:
        return self.rollout.environment_id, self.rollout.workload_id

    @property
    def state(self) -> State:
        return State(self.rollout.state)

    @property
    def environment(self) -> Environment:
        return self.known.environments[self.rollout.environment_id]

    @property
    def assignment(self) -> Assignment:
        found = self.known.assignments.get(self.place)
        return found or served_assignment(*self.place)  # which raises `NotServed`

    @property
    def needs_approval(self) -> bool:
        return four_eyes_apply(self.rollout, self.environment)

    @property
    def next_stage(self) -> int:
        return next_stage(self.rollout)


def next_stage(rollout: Rollout) -> int:
    """Return the index of the stage that the rollout would enter next: 0 if it has not started."""
    return 0 if rollout.state == State.SCHEDULED else rollout.stage + 1


Check = Callable[[_Situation], object]  # raises the PointsmanError that the action raises


def refusals(rollout: Rollout, now: datetime, known: Surroundings | None = None) -> dict[str, Refusal | None]:
    """Return, for each event and `APPROVE_STAGE`, None if it is possible now, else the first refusal."""
    known = known or Surroundings([rollout])
    return {event: refusal(rollout, event, now, known) for event in _CHECKS}


def refusal(rollout: Rollout, event: str, now: datetime, known: Surroundings | None = None) -> Refusal | None:
    """Return the first refusal of `event`, or None if it is possible now. `known`: read for many rollouts at once."""
    situation = _Situation(rollout, event, now, known or Surroundings([rollout]))
    at_point, conditions = _CHECKS[event]
    for checks, by_state in ((at_point, True), (conditions, False)):
        if error := _first_error(situation, checks):
            return Refusal(error.code, error.detail, by_state)
    return None


def require(rollout: Rollout, event: str, now: datetime) -> None:
    """Raise the first error that prevents `event`, if any."""
    situation = _Situation(rollout, event, now, Surroundings([rollout]))
    at_point, conditions = _CHECKS[event]
    for check in (*at_point, *conditions):
        check(situation)


def freeze_sentence(environment: Environment, now: datetime) -> str | None:
    """Return why nothing starts or advances in the environment now, or None without a change freeze."""
    until = environment.frozen_until
    if until is None or not environment.is_frozen(now):
        return None
    because = f" ({environment.freeze_reason})" if environment.freeze_reason else ""
    return (
        f"{environment.name} is frozen until {until:%Y-%m-%d %H:%M} UTC{because}: nothing starts or advances. "
        "A rollback is still possible."
    )


def _first_error(situation: _Situation, checks: Iterable[Check]) -> PointsmanError | None:
    for check in checks:
        try:
            check(situation)
        except PointsmanError as error:
            return error
    return None


# --- does the rollout's state and stage allow it? --------------------------------------------------------


def _in_state(s: _Situation) -> None:
    legal(s.rollout, Event(s.event))


def _approved_or_missing(s: _Situation) -> None:
    if s.state is State.AWAITING_APPROVAL:
        _start_is_approved(s)  # says what is missing, which helps more than "not in this state"


def _has_next_stage(s: _Situation) -> None:
    if s.next_stage >= len(s.rollout.stages):
        raise IllegalMove("It is already at its last stage; the next step is to complete it.")


def _at_last_stage(s: _Situation) -> None:
    if s.rollout.stage + 1 < len(s.rollout.stages):
        at = Stage.from_dict(s.rollout.stages[s.rollout.stage]).named
        raise IllegalMove(f"It is at {at}, and can complete only from the plan's last stage. Advance it.")


def _stage_asks_approval(s: _Situation) -> None:
    if s.state not in APPROVABLE or s.next_stage >= len(s.rollout.stages):
        raise IllegalMove(f"There is no next stage to approve: the rollout is {words(s.state)}.")
    stage = Stage.from_dict(s.rollout.stages[s.next_stage])
    if not stage.approval:
        raise IllegalMove(f"{stage.named.capitalize()} does not require an approval.")
    if _is_approved(s):
        raise IllegalMove(f"{stage.named.capitalize()} is already approved.")


def _is_approved(s: _Situation) -> bool:
    try:
        needed_approvals(s.rollout, s.next_stage, s.known.given)
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
    if s.now > s.rollout.ended_at + timedelta(hours=REVERT_HOURS):
        raise Conflict(
            f"It was completed more than {REVERT_HOURS} hours ago, and the earlier version was not compared on today's "
            "traffic. Propose a rollout to that version instead."
        )


# --- does anything else prevent it? ----------------------------------------------------------------------


def _start_is_approved(s: _Situation) -> None:
    if s.needs_approval:
        needed_approvals(s.rollout, known=s.known.given)


def _same_terms(s: _Situation) -> None:
    if s.needs_approval:
        require_same_terms(s.rollout, s.known.terms[s.rollout.workload_id])


def _no_freeze(s: _Situation) -> None:
    until, sentence = s.environment.frozen_until, freeze_sentence(s.environment, s.now)
    if until and sentence:
        raise Frozen(sentence, until=until.isoformat())


def _next_stage_is_approved(s: _Situation) -> None:
    if Stage.from_dict(s.rollout.stages[s.next_stage]).approval:
        needed_approvals(s.rollout, s.next_stage, s.known.given)


def _same_baseline(s: _Situation) -> None:
    """The baseline of the rollout must be the version that is served."""
    rollout, serves = s.rollout, s.assignment.baseline
    if serves.pk != rollout.baseline_id:
        error = ApprovalStale if s.event in (Event.START, Event.BREAK_GLASS) else Conflict
        raise error(
            f"{rollout.environment.name} now serves version {serves.number} of {rollout.workload.name}, not "
            f"version {rollout.baseline.number} that this rollout starts from; amend the rollout to compare it "
            "with the version that is served."
        )


def _no_pin(s: _Situation) -> None:
    if model := s.assignment.pin_model:
        raise Conflict(
            f"{s.rollout.workload.name} is pinned to {model} in {s.rollout.environment.name}: a new stage would "
            "reach nobody. Unpin it first."
        )


def _pin_keeps_its_model(s: _Situation) -> None:
    """Routers look a pin up in the baseline's policy. Completing makes the candidate the baseline, and a name that it
    does not have would be called as it stands."""
    name, rollout = s.assignment.pin_model, s.rollout
    if not name:
        return
    before, after = (
        version.document["models"].get(name, {}).get("model")
        for version in (s.assignment.baseline, rollout.candidate)
    )
    if before != after:
        has = f"uses {after} under that name" if after else "has no model of that name"
        raise Conflict(
            f"{rollout.workload.name} is pinned to {name} in {rollout.environment.name}, and version "
            f"{rollout.candidate.number} {has}. Unpin it first, or roll back."
        )


def _no_other_active(s: _Situation) -> None:
    """A hint for the page. The partial unique index makes the decision."""
    if s.place in s.known.active and s.state not in ACTIVE:
        raise another_is_active(s.rollout)


def _models_enabled(s: _Situation) -> None:
    """A model may have been disabled after the version was written."""
    refuse_disabled_models(s.rollout.candidate, s.known.enabled_models)


def _somebody_approved(s: _Situation) -> None:
    require_an_approval(s.rollout, s.known.given)


def _candidate_not_served(s: _Situation) -> None:
    if s.assignment.baseline_id == s.rollout.candidate_id:
        raise Conflict(f"Version {s.rollout.candidate.number} is already being served; cancel this rollout.")


def _is_way_back(s: _Situation) -> None:
    """A revert returns to the version served before. Reverting a revert would move forward again, at once."""
    if s.rollout.reverts_id is not None and s.environment.four_eyes:
        raise ApprovalMissing(
            f"This rollout is itself a revert: going forward to version {s.rollout.baseline.number} again needs "
            "another person's approval. Propose a rollout to it, and in an emergency start it by break-glass."
        )


def _not_reverted(s: _Situation) -> None:
    if s.rollout.pk in s.known.reverted:
        raise Conflict("It has already been reverted.")
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
    Event.BREAK_GLASS: ((_in_state,), (_same_baseline, _no_pin, _models_enabled, _no_other_active)),
    Event.ADVANCE: (
        (_in_state, _has_next_stage),
        (_no_freeze, _same_baseline, _no_pin, _models_enabled, _next_stage_is_approved),
    ),
    Event.COMPLETE: ((_in_state, _at_last_stage), (_same_baseline, _pin_keeps_its_model)),
    Event.REVERT: ((_completed_lately,), (_not_reverted, _is_way_back)),
    APPROVE_STAGE: ((_stage_asks_approval,), ()),
}
