"""Every write to what may be served and to what is served now: the API, console and commands all come here.

Each action runs in one transaction with its audit entry, which is appended last: the audit head is the most
contended row, so it is locked for the shortest time. `log.attempt` is that transaction; what it refuses is
rolled back and kept in the log as refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.db.models import Max
from django.forms.models import model_to_dict

from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import (
    AlreadyExists,
    InvalidInput,
    NotServed,
    PolicyRefused,
    RolloutActive,
    StaleVersion,
)
from pointsman.policy import Locate, canonical, digest
from policies_app.catalogue.validation import problems_of
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Revision, Workload
from policies_app.snapshots import build

Row = TypeVar("Row", Environment, Workload, Model)

# --- what may be served ------------------------------------------------------------------------------


def register_environment(name: str, *, actor: Actor, **fields: Any) -> Environment:
    return _create(Environment(name=name, **fields), "environment.register", actor=actor)


def edit_environment(
    environment: Environment, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Environment:
    """Change four eyes, the poll interval or the freeze (`frozen_until`, `freeze_reason`)."""
    return _edit(environment, "environment.edit", changes, expected=expected, actor=actor, reason=reason)


def register_workload(name: str, *, actor: Actor, **fields: Any) -> Workload:
    return _create(Workload(name=name, **fields), "workload.register", actor=actor)


def edit_workload(
    workload: Workload, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Workload:
    then = _redraw_assignments if "unit" in changes else None
    return _edit(workload, "workload.edit", changes, expected=expected, actor=actor, reason=reason, then=then)


def add_model(name: str, *, actor: Actor, **fields: Any) -> Model:
    return _create(Model(name=name, **fields), "model.add", actor=actor)


def edit_model(
    model: Model, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Model:
    return _edit(model, "model.edit", changes, expected=expected, actor=actor, reason=reason)


def add_version(
    workload: Workload,
    document: Mapping[str, Any],
    *,
    actor: Actor,
    note: str = "",
    locate: Locate | None = None,
) -> PolicyVersion:
    """Keep a document as the workload's next version.

    Raises `PolicyRefused` with every problem at once, or `AlreadyExists` naming the version that has the same
    content: two numbers for one digest would let an approval of one pass for the other.
    """
    problems = problems_of(document, workload, locate=locate)
    if errors := [problem for problem in problems if problem.severity == "error"]:
        raise PolicyRefused(
            f"The document has {len(errors)} problem{'s' if len(errors) > 1 else ''}; nothing was saved.",
            [problem.as_dict() for problem in problems],
        )
    target = ("workload", workload.name)
    with log.attempt(actor=actor, action="version.add", target=target, workload=workload.name, reason=note):
        Workload.objects.select_for_update().get(pk=workload.pk)  # one number at a time
        content = digest(document)
        if same := workload.versions.filter(digest=content).first():
            raise AlreadyExists(
                f"Version {same.number} of {workload.name} has exactly this content ({content}).",
                version=same.number,
            )
        last = workload.versions.aggregate(last=Max("number"))["last"] or 0
        version = PolicyVersion.objects.create(
            workload=workload,
            number=last + 1,
            digest=content,
            canonical=canonical(document).decode(),
            note=note,
            author_label=actor.label,
            author_user_id=actor.user_id,
        )
        log.record(
            actor=actor,
            action="version.add",
            target=("version", f"{workload.name}/{version.number}"),
            workload=workload.name,
            reason=note,
            after={"number": version.number, "digest": content},
        )
    return version


# --- what is served now ------------------------------------------------------------------------------


def serve_first(environment: Environment, version: PolicyVersion, *, actor: Actor, reason: str) -> Assignment:
    """Begin to serve a workload in an environment. Every later version comes by a rollout."""
    workload = version.workload
    place = _place_of(environment, workload)
    with log.attempt(actor=actor, action="assignment.serve_first", reason=reason, **place):
        revision = _draw_revision(environment.pk, workload.pk, "assignment.serve_first")
        if Assignment.objects.filter(environment=environment, workload=workload).exists():
            raise AlreadyExists(
                f"{environment.name} already serves {workload.name}; propose a rollout to move it to "
                f"version {version.number}."
            )
        assignment = Assignment(
            environment=environment, workload=workload, baseline=version, revision=revision
        )
        assignment.fragment = build.fragment(assignment)
        assignment.save(force_insert=True)
        log.record(
            actor=actor, action="assignment.serve_first", reason=reason, after=_served(assignment), **place
        )
    return assignment


def stop_serving(assignment: Assignment, *, actor: Actor, reason: str) -> None:
    """Take a workload out of an environment. Routers answer its tasks by their own default from then on."""
    place = _place_of(assignment.environment, assignment.workload)
    with log.attempt(actor=actor, action="assignment.stop_serving", reason=reason, **place):
        _draw_revision(
            assignment.environment_id, assignment.workload_id, "assignment.stop_serving", removed=True
        )
        assignment = served_assignment(assignment.environment_id, assignment.workload_id)
        if assignment.rollout:
            raise RolloutActive(
                f"A rollout of {assignment.workload.name} is under way in {assignment.environment.name}; "
                "roll it back first."
            )
        before = _served(assignment)
        assignment.delete()
        log.record(actor=actor, action="assignment.stop_serving", reason=reason, before=before, **place)


def set_assignment(
    environment_id: int,
    workload_id: int,
    *,
    baseline: PolicyVersion,
    candidate: PolicyVersion | None = None,
    rollout: UUID | None = None,
    stage: int | None = None,
    mode: str = "",
    share_pcm: int = 0,
    mirror_pcm: int = 0,
    salt: str = "",
    cost_cap_nusd: int | None = None,
    cause: str,
) -> int:
    """Move an assignment, inside the caller's transaction, and return the new revision.

    The caller (`rollout_app.actions`) writes the audit entry: the move is a part of its transition, not a
    change of its own. Raises `NotServed` when the environment serves nothing for the workload yet.
    """
    revision = _draw_revision(environment_id, workload_id, cause)
    assignment = served_assignment(environment_id, workload_id)
    assignment.baseline, assignment.candidate = baseline, candidate
    assignment.rollout, assignment.stage, assignment.mode = rollout, stage, mode
    assignment.share_pcm, assignment.mirror_pcm, assignment.salt = share_pcm, mirror_pcm, salt
    assignment.cost_cap_nusd = cost_cap_nusd
    _write(assignment, revision)
    return revision


def pin(assignment: Assignment, model_alias: str, *, actor: Actor, reason: str) -> Assignment:
    """The emergency switch: one model for everything, at once, without approval.

    `model_alias` is a name under `models` of the served baseline, the one document that every router has.
    """
    aliases = sorted(assignment.baseline.document["models"])
    if model_alias not in aliases:
        raise InvalidInput(
            f"{model_alias!r} is not a model of the served policy; it has {', '.join(aliases)}."
        )
    return _set_pin(assignment, model_alias, reason, action="assignment.pin", actor=actor)


def unpin(assignment: Assignment, *, actor: Actor, reason: str) -> Assignment:
    if not assignment.pin_model:
        raise InvalidInput(f"{assignment.workload.name} is not pinned in {assignment.environment.name}.")
    return _set_pin(assignment, "", reason, action="assignment.unpin", actor=actor)


def _set_pin(assignment: Assignment, model: str, reason: str, *, action: str, actor: Actor) -> Assignment:
    place = _place_of(assignment.environment, assignment.workload)
    with log.attempt(actor=actor, action=action, reason=reason, **place):
        revision = _draw_revision(assignment.environment_id, assignment.workload_id, action)
        assignment = served_assignment(assignment.environment_id, assignment.workload_id)
        before = _served(assignment)
        assignment.pin_model, assignment.pin_reason = model, reason if model else ""
        _write(assignment, revision)
        log.record(
            actor=actor, action=action, reason=reason, before=before, after=_served(assignment), **place
        )
    return assignment


def served_assignment(environment_id: int, workload_id: int) -> Assignment:
    """The assignment with all that its fragment needs, or `NotServed`."""
    try:
        return Assignment.objects.select_related("environment", "workload", "baseline", "candidate").get(
            environment_id=environment_id, workload_id=workload_id
        )
    except Assignment.DoesNotExist:
        raise NotServed(
            "This environment serves nothing for this workload yet; serve a first version before a rollout."
        ) from None


def _draw_revision(environment_id: int, workload_id: int, cause: str, *, removed: bool = False) -> int:
    """The environment's next revision, and its row of history.

    The row stays locked until the commit, so that whoever sees revision n sees all that n holds: a sequence
    would hand out n + 1 to a transaction that may commit before n.
    """
    environment = Environment.objects.select_for_update().get(pk=environment_id)
    environment.revision += 1
    environment.save(update_fields=["revision"])
    Revision.objects.create(
        environment_id=environment_id,
        number=environment.revision,
        workload_id=workload_id,
        cause=cause,
        removed=removed,
    )
    name, revision = environment.name, environment.revision
    transaction.on_commit(lambda: build.publish(name, revision))
    return revision


def _redraw_assignments(workload: Workload) -> None:
    """Publish a changed unit of assignment: it is a part of what routers receive."""
    for environment_id in workload.assignments.values_list("environment_id", flat=True).order_by(
        "environment_id"
    ):
        revision = _draw_revision(environment_id, workload.pk, "workload.edit")
        assignment = served_assignment(environment_id, workload.pk)
        if assignment.rollout:
            # The arms are drawn by unit: another unit in mid-rollout would move everybody.
            raise RolloutActive(
                f"A rollout of {workload.name} is under way in {assignment.environment.name}; "
                "the unit of assignment cannot change before it has ended."
            )
        _write(assignment, revision)


def _write(assignment: Assignment, revision: int) -> None:
    assignment.revision = revision
    assignment.fragment = build.fragment(assignment)
    assignment.save()


def _served(assignment: Assignment) -> dict[str, Any]:
    """What the audit log keeps of an assignment: versions by number, never whole documents."""
    return {
        "baseline": assignment.baseline.number,
        "candidate": assignment.candidate and assignment.candidate.number,
        "mode": assignment.mode,
        "share_pcm": assignment.share_pcm,
        "pin": assignment.pin_model,
        "revision": assignment.revision,
    }


def _place_of(environment: Environment, workload: Workload) -> dict[str, Any]:
    """Where an assignment's entries belong in the log."""
    return {
        "target": ("assignment", f"{environment.name}/{workload.name}"),
        "environment": environment.name,
        "workload": workload.name,
    }


# --- one way to create, one way to edit --------------------------------------------------------------


def _create(row: Row, action: str, *, actor: Actor) -> Row:
    """Validate, insert and audit a new row; a taken name is a 409, never a 500."""
    _validate(row)
    place = {"action": action, "target": (_kind(row), row.name), **_place(row)}
    with log.attempt(actor=actor, **place):
        try:
            with transaction.atomic():
                row.save(force_insert=True)
        except IntegrityError:
            raise AlreadyExists(f"There is already {_kind(row)} called {row.name!r}.") from None
        log.record(actor=actor, after=_fields(row), **place)
    return row


def _edit(
    row: Row,
    action: str,
    changes: Mapping[str, Any],
    *,
    expected: int | None,
    actor: Actor,
    reason: str,
    then: Callable[[Row], None] | None = None,
) -> Row:
    """Apply `changes` if the row is still at version `expected` (None: whichever), and audit the difference.

    `then` is what follows from the change; it runs before the audit entry, whose lock comes last.
    """
    place = {"action": action, "target": (_kind(row), row.name), **_place(row)}
    with log.attempt(actor=actor, reason=reason, **place):
        fresh = type(row)._default_manager.select_for_update().get(pk=row.pk)
        if expected is not None and fresh.version != expected:
            raise StaleVersion(
                f"{_kind(row).capitalize()} {fresh.name} is at version {fresh.version}, not {expected}; "
                "read it again and repeat the change."
            )
        before = _fields(fresh)
        for name, value in changes.items():
            setattr(fresh, name, value)
        fresh.version += 1
        _validate(fresh)
        fresh.save(update_fields=[*changes, "version"])
        if then:
            then(fresh)
        log.record(actor=actor, reason=reason, before=before, after=_fields(fresh), **place)
    return fresh


def _validate(row: models.Model) -> None:
    try:
        row.full_clean(validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        problems = [
            {"path": field, "message": message}
            for field, messages in error.message_dict.items()
            for message in messages
        ]
        raise InvalidInput(f"{_kind(row).capitalize()} has fields that cannot be kept.", problems) from None


def _kind(row: models.Model) -> str:
    return str(row._meta.verbose_name)


def _place(row: Row) -> dict[str, Any]:
    """Where an entry belongs in the log's filters."""
    return {_kind(row): row.name} if isinstance(row, Environment | Workload) else {}


def _fields(row: models.Model) -> dict[str, Any]:
    """A row's own values, as the audit log keeps them."""
    values = model_to_dict(row)
    return {name: values[name] for name in sorted(values) if name not in ("id", "revision", "epoch")}
