"""The mechanics of every move: state table, compare-and-swap, transition row, assignment, audit entry.

All of them commit together or not at all. The loser of a race gets `RolloutMoved` and changes nothing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Max, QuerySet

from controlplane.audit import log
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    IllegalMove,
    InvalidInput,
    NotFound,
    RolloutActive,
    RolloutMoved,
)
from policies_app.actions import set_assignment
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app import nudges
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import Event, IllegalTransition, State, next_state, words
from rollout_app.models import Rollout, Transition

MAX_REASON = 2_000  # characters
# What the page shows of the last evaluation, reset when it no longer applies.
CLEARED = {"hold_code": "", "hold_sentence": "", "outlook": ""}


def loaded(rollout: "Rollout | UUID | str") -> Rollout:
    """Return the rollout with its relations. An instance is returned unchanged; an id is read from the database."""
    if isinstance(rollout, Rollout):
        return rollout
    try:
        return _with_relations().get(pk=rollout)
    except Rollout.DoesNotExist:
        raise NotFound(f"There is no rollout {rollout}.") from None


def locked_now(rollout: Rollout, actor: Actor) -> Rollout:
    """Return the current rollout, locked. Call it inside the action's transaction.

    A person who pauses or rolls back must not get a conflict because the engine advanced at the same moment. The
    engine itself gets the rollout back unchanged, so it acts only on the state that it judged.
    """
    if actor.kind == SYSTEM.kind:
        return rollout
    return _with_relations().select_for_update(of=("self",)).get(pk=rollout.pk)


def _with_relations() -> QuerySet[Rollout]:
    return Rollout.objects.select_related("environment", "workload", "baseline", "candidate")


@contextmanager
def audited_transaction(rollout: Rollout, action: str, *, actor: Actor, reason: str) -> Iterator[str]:
    """Open the action's transaction and yield the stripped reason. The only place that audits refused attempts.

    Races among the system's own reconcilers are not attempts and are not audited.
    """
    reason = checked_reason(reason)
    if actor.kind == SYSTEM.kind:
        with transaction.atomic():
            yield reason
    else:
        with log.attempt(actor=actor, action=action, reason=reason, **place(rollout)):
            yield reason


def checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not 1 <= len(reason) <= MAX_REASON:
        raise InvalidInput(f"Give a reason of 1 to {MAX_REASON} characters; the audit log records it.")
    return reason


def place(rollout: Rollout) -> dict[str, Any]:
    """Return the target, environment and workload for the rollout's audit entries."""
    return {
        "target": ("rollout", str(rollout.pk)),
        "environment": rollout.environment.name,
        "workload": rollout.workload.name,
    }


def move(
    rollout: Rollout,
    event: Event,
    *,
    actor: Actor,
    reason: str,
    stage: int | None = None,
    serve: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
    evidence: Any = None,
    approvals: Any = None,
) -> Rollout:
    """Apply one transition inside the caller's transaction.

    `stage` is the stage after the move (None: unchanged), `serve` the arguments for `set_assignment` (None:
    unchanged), and `changes` further columns to write. Raises `IllegalMove`, `RolloutMoved`, or `RolloutActive` when
    another rollout of this environment and workload is under way; the partial unique index enforces that.
    """
    before = {"state": rollout.state, "stage": rollout.stage, "version": rollout.version}
    after_state = legal(rollout, event)
    after_stage = rollout.stage if stage is None else stage
    # Only a rollout under way is evaluated again; elsewhere the reason of a hold would outlive its cause.
    cleared = {} if after_state in (State.RUNNING, State.PAUSED) else CLEARED
    values = {
        **cleared,
        **(changes or {}),
        "state": after_state,
        "stage": after_stage,
        "version": rollout.version + 1,
        "wake_at": None,
    }
    _compare_and_swap(rollout, before, values)
    revision = serve_now(rollout, f"rollout.{event}", serve) if serve is not None else None
    keep_history(rollout, event, before, actor=actor, reason=reason, revision=revision)
    log.record(
        actor=actor,
        action=f"rollout.{event}",
        reason=reason,
        before=before,
        after={
            "state": rollout.state,
            "stage": rollout.stage,
            "version": rollout.version,
            "revision": revision,
            **_served(serve),
        },
        evidence=evidence,
        approvals=approvals,
        **place(rollout),
    )
    pk = rollout.pk
    transaction.on_commit(lambda: nudges.nudge([pk]))
    return rollout


def _served(serve: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is served from now on for the audit entry: versions by number, mode and shares."""
    if serve is None:
        return {}
    versions = {arm: serve.get(arm) for arm in ("baseline", "candidate")}
    return {arm: version and version.number for arm, version in versions.items()} | {
        "mode": serve.get("mode", ""),
        "share_pcm": serve.get("share_pcm", 0),
        "mirror_pcm": serve.get("mirror_pcm", 0),
    }


def lock_unmoved(rollout: Rollout) -> None:
    """Lock the row inside the action's transaction. Raise `RolloutMoved` if it changed since the caller read it."""
    seen = {"state": rollout.state, "stage": rollout.stage, "version": rollout.version}
    if not Rollout.objects.select_for_update().filter(pk=rollout.pk, **seen).exists():
        raise _moved_error(rollout)


def lock_for_move(rollout: Rollout) -> None:
    """Lock what decides whether a rollout may move. Check the conditions after this, not before.

    The environment's row covers freezes, four eyes, pins, what is served and disabled models: each of these changes
    locks it. If approvals are needed, the log's head covers the roles of the approvers. Otherwise a change that was
    answered "done" while the move waited for a lock would be followed by a move that it forbids.

    The order is the same everywhere: workload (`lock_criteria`), rollout, environment, the log's head.
    """
    lock_unmoved(rollout)
    environment = Environment.objects.select_for_update(no_key=True).get(pk=rollout.environment_id)
    if four_eyes_apply(rollout, environment):
        log.locked_head()


def _compare_and_swap(rollout: Rollout, before: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write `values` if the rollout still matches `before` (compare-and-swap); otherwise raise and write nothing."""
    try:
        with transaction.atomic():
            moved = Rollout.objects.filter(pk=rollout.pk, **before).update(**values)
    except IntegrityError:
        raise another_is_active(rollout) from None
    if not moved:
        raise _moved_error(rollout)
    for name, value in values.items():
        setattr(rollout, name, value)


def another_is_active(rollout: Rollout) -> RolloutActive:
    return RolloutActive(
        f"Another rollout of {rollout.workload.name} is under way in {rollout.environment.name}; let it "
        "end or roll it back first."
    )


def evaluate_soon(rollout: Rollout) -> None:
    """Evaluate the rollout before it is due, because what holds it may have changed."""
    Rollout.objects.filter(pk=rollout.pk).update(wake_at=None)
    transaction.on_commit(lambda: nudges.nudge([rollout.pk]))


def legal(rollout: Rollout, event: Event) -> State:
    """Return the state after `event`, or raise `IllegalMove`.

    Call this before other checks: for an ended rollout, "nobody has approved it" would be true but unhelpful.
    """
    try:
        return next_state(State(rollout.state), event)
    except IllegalTransition as error:
        raise IllegalMove(str(error), state=rollout.state, allowed=list(error.allowed)) from None


def _moved_error(rollout: Rollout) -> RolloutMoved:
    now = Rollout.objects.values("state", "stage", "version").get(pk=rollout.pk)
    return RolloutMoved(
        f"The rollout is now {_describe(rollout, **now)}; it was "
        f"{_describe(rollout, rollout.state, rollout.stage, rollout.version)} when you decided. Read it again.",
        **now,
    )


def _describe(rollout: Rollout, state: str, stage: int, version: int) -> str:
    at = Stage.from_dict(rollout.stages[stage]).named
    return f"{words(state)} at {at} (version {version})"


def keep_history(
    rollout: Rollout,
    event: Event,
    before: Mapping[str, Any],
    *,
    actor: Actor,
    reason: str,
    revision: int | None = None,
) -> Transition:
    last = rollout.transitions.aggregate(last=Max("sequence"))["last"] or 0
    return Transition.objects.create(
        rollout=rollout,
        sequence=last + 1,
        event=event,
        before_state=before["state"],
        before_stage=before["stage"],
        after_state=rollout.state,
        after_stage=rollout.stage,
        reason=reason,
        actor_kind=actor.kind,
        actor_label=actor.label,
        revision=revision,
    )


def serve_now(rollout: Rollout, cause: str, serve: Mapping[str, Any]) -> int:
    revision = set_assignment(rollout.environment_id, rollout.workload_id, cause=cause, **serve)
    if rollout.state == State.ROLLING_BACK:
        rollout.rollback_revision = revision
        Rollout.objects.filter(pk=rollout.pk).update(rollback_revision=revision)
    return revision


def serving_stage(rollout: Rollout, at: int) -> dict[str, Any]:
    """Return the arguments for `set_assignment` that serve the rollout's stage `at`."""
    stage = Stage.from_dict(rollout.stages[at])
    return {
        "baseline": rollout.baseline,
        "candidate": rollout.candidate,
        "rollout": rollout.pk,
        "stage": at,
        "mode": stage.mode,
        "share_pcm": stage.share_pcm,
        "mirror_pcm": stage.mirror_pcm,
        "salt": rollout.salt,
        "cost_cap_nusd": rollout.reference.get("cost_cap_nusd"),
        "replaces": rollout.baseline,
    }


def serving_only(version: PolicyVersion) -> dict[str, Any]:
    """Return the arguments for `set_assignment` that serve one version to all traffic."""
    return {"baseline": version}


def lock_criteria(rollout: Rollout) -> None:
    """Lock the workload's row and read it again, so that no criterion changes between the checks of a start and its
    commit. This must be the first lock taken, as in `edit_workload`."""
    rollout.workload = Workload.objects.select_for_update(no_key=True).get(pk=rollout.workload_id)


def four_eyes_apply(rollout: Rollout, environment: Environment) -> bool:
    """Return whether a second person must approve: four eyes applied at the proposal, or apply now."""
    return rollout.four_eyes or environment.four_eyes


def fresh_environment(rollout: Rollout) -> Environment:
    """Read the environment again: its rules may have changed since the caller read the rollout."""
    return Environment.objects.get(pk=rollout.environment_id)
