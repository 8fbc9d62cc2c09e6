"""How every action moves a rollout: state table, compare-and-swap, transition row, assignment, audit entry.

All of it commits together or not at all. The loser of a race gets `RolloutMoved` and has changed nothing.
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
from policies_app.models import Environment, PolicyVersion
from rollout_app import nudges
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import ACTIVE, Event, IllegalTransition, State, next_state, words
from rollout_app.models import Rollout, Transition

MAX_REASON = 2_000  # characters


def loaded(rollout: "Rollout | UUID | str") -> Rollout:
    """The rollout with all that a move needs. An instance is moved as it was read, an id as it is now."""
    if isinstance(rollout, Rollout):
        return rollout
    try:
        return _with_relations().get(pk=rollout)
    except Rollout.DoesNotExist:
        raise NotFound(f"There is no rollout {rollout}.") from None


def locked_now(rollout: Rollout, actor: Actor) -> Rollout:
    """Inside the action's transaction: the rollout as it is by now, locked.

    A person who pauses or rolls back must not be told to read it again because the engine advanced in the same
    moment. The engine itself acts only on the state that it has judged.
    """
    if actor.kind == SYSTEM.kind:
        return rollout
    return _with_relations().select_for_update(of=("self",)).get(pk=rollout.pk)


def _with_relations() -> QuerySet[Rollout]:
    return Rollout.objects.select_related("environment", "workload", "baseline", "candidate")


@contextmanager
def audited_transaction(rollout: Rollout, action: str, *, actor: Actor, reason: str) -> Iterator[str]:
    """The action's transaction, and the only place that audits a refused attempt. Yields the stripped reason.

    A race that the system's own reconcilers lose among themselves is no attempt, and is not audited.
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
        raise InvalidInput(f"Say why, in 1 to {MAX_REASON} characters: the audit log keeps it.")
    return reason


def place(rollout: Rollout) -> dict[str, Any]:
    """Where the rollout's audit entries belong."""
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
    """One transition, inside the caller's transaction.

    `stage` is the stage after it (None: unchanged), `serve` what `set_assignment` is to serve from now on
    (None: unchanged), `changes` further columns. Raises `IllegalMove`, `RolloutMoved`, or `RolloutActive`
    when another rollout of this place is under way: the partial unique index is the judge of that.
    """
    before = {"state": rollout.state, "stage": rollout.stage, "version": rollout.version}
    after_state = legal(rollout, event)
    after_stage = rollout.stage if stage is None else stage
    values = {
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
    """What is served from now on, as the audit entry of a move keeps it: versions by number, and to which share."""
    if serve is None:
        return {}
    versions = {arm: serve.get(arm) for arm in ("baseline", "candidate")}
    return {arm: version and version.number for arm, version in versions.items()} | {
        "mode": serve.get("mode", ""),
        "share_pcm": serve.get("share_pcm", 0),
        "mirror_pcm": serve.get("mirror_pcm", 0),
    }


def lock_unmoved(rollout: Rollout) -> None:
    """Inside the action's transaction: hold the row, or raise `RolloutMoved` when it is not as the caller saw it."""
    seen = {"state": rollout.state, "stage": rollout.stage, "version": rollout.version}
    if not Rollout.objects.select_for_update().filter(pk=rollout.pk, **seen).exists():
        raise _moved_error(rollout)


def _compare_and_swap(rollout: Rollout, before: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """The compare-and-swap: write `values` if the rollout is still as `before` says, else refuse and write nothing."""
    try:
        with transaction.atomic():
            moved = Rollout.objects.filter(pk=rollout.pk, **before).update(**values)
    except IntegrityError:
        raise another_is_active(rollout) from None
    if not moved:
        raise _moved_error(rollout)
    for name, value in values.items():
        setattr(rollout, name, value)


def active_elsewhere(rollout: Rollout) -> bool:
    """Whether another rollout of the same environment and workload is under way."""
    same_place = Rollout.objects.filter(environment=rollout.environment_id, workload=rollout.workload_id)
    return same_place.filter(state__in=[state.value for state in ACTIVE]).exclude(pk=rollout.pk).exists()


def another_is_active(rollout: Rollout) -> RolloutActive:
    return RolloutActive(
        f"Another rollout of {rollout.workload.name} is under way in {rollout.environment.name}; let it "
        "end or roll it back first."
    )


def evaluate_soon(rollout: Rollout) -> None:
    """What holds the rollout may have changed: evaluate it before it is due."""
    Rollout.objects.filter(pk=rollout.pk).update(wake_at=None)
    transaction.on_commit(lambda: nudges.nudge([rollout.pk]))


def legal(rollout: Rollout, event: Event) -> State:
    """The state after `event`, or `IllegalMove`. Checked before anything else: of a rollout that has ended,
    "nobody has approved it" is true and no help."""
    try:
        return next_state(State(rollout.state), event)
    except IllegalTransition as error:
        raise IllegalMove(str(error), state=rollout.state, allowed=list(error.allowed)) from None


def _moved_error(rollout: Rollout) -> RolloutMoved:
    now = Rollout.objects.values("state", "stage", "version").get(pk=rollout.pk)
    return RolloutMoved(
        f"The rollout is now {_describe(rollout, **now)}; it was "
        f"{_describe(rollout, rollout.state, rollout.stage, rollout.version)} when you decided. Look again.",
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
    """What `set_assignment` takes to serve the rollout's stage `at`."""
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
    }


def serving_only(version: PolicyVersion) -> dict[str, Any]:
    """What `set_assignment` takes to serve one version to everybody."""
    return {"baseline": version}


def fresh_environment(rollout: Rollout) -> Environment:
    """The environment's rules as they are now, not as they were when the caller read the rollout."""
    return Environment.objects.get(pk=rollout.environment_id)
