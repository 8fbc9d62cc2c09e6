"""Create or edit a named row (an environment, a workload, a model) with its audit entry.

Both run in one transaction with the entry, which is appended last: the audit head is the most contended row, and this
keeps its lock short. A refusal (403, 409, 412) rolls the change back and is also recorded as an entry.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.forms.models import model_to_dict

from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, InvalidInput, StaleVersion
from policies_app.models import Environment, Model, Workload

NamedRow = TypeVar("NamedRow", Environment, Workload, Model)


def create_row(
    row: NamedRow,
    action: str,
    *,
    actor: Actor,
    reason: str = "",
    then: Callable[[NamedRow], None] | None = None,
) -> NamedRow:
    """Validate, insert and audit a new row. A name that is taken is a 409. `then` runs after the insert."""
    _validate(row)
    subject = _audit_subject(row, action)
    with log.attempt(actor=actor, reason=reason, **subject):
        try:
            with transaction.atomic():
                row.save(force_insert=True)
        except IntegrityError:
            raise AlreadyExists(
                f"The {_kind(row)} {row.name!r} already exists; choose another name."
            ) from None
        if then:
            then(row)
        log.record(actor=actor, reason=reason, after=audited_fields(row), **subject)
    return row


def edit_row(
    row: NamedRow,
    action: str,
    changes: Mapping[str, Any],
    *,
    expected: int | None,
    actor: Actor,
    reason: str,
    guard: Callable[[NamedRow, Mapping[str, Any]], None] | None = None,
    then: Callable[[NamedRow, Mapping[str, Any]], None] | None = None,
    first: Callable[[], None] | None = None,
    kept: Mapping[str, Any] | None = None,
) -> NamedRow:
    """Apply `changes` if the row is still at version `expected` (None: any), and audit the difference. Values that are
    the same already change nothing.

    `guard` receives the locked row before the change and the values that differ from it, and may raise. `then` receives
    the same after the change but before the audit entry, whose lock must come last. `kept` holds further members of
    that entry. `first` takes the locks that must come before the row's.
    """
    subject = _audit_subject(row, action)
    with log.attempt(actor=actor, reason=reason, **subject):
        if first:
            first()
        # No key changes, so use the weaker lock: it does not block transactions that only refer to the row.
        fresh = type(row)._default_manager.select_for_update(no_key=True).get(pk=row.pk)
        if expected is not None and fresh.version != expected:
            raise StaleVersion(
                f"{_kind(row).capitalize()} {fresh.name} is at version {fresh.version}, not {expected}; "
                "read it again and repeat the change."
            )
        changes = {name: value for name, value in changes.items() if getattr(fresh, name) != value}
        if guard:
            guard(fresh, changes)
        before = audited_fields(fresh)
        for name, value in changes.items():
            setattr(fresh, name, value)
        _validate(fresh, only=changes)
        if audited_fields(fresh) == before:
            return fresh  # nothing changes: no new version, no entry
        fresh.version += 1
        fresh.save(update_fields=[*changes, "version"])
        if then:
            then(fresh, changes)
        entry = {**subject, **(kept or {})}
        log.record(actor=actor, reason=reason, before=before, after=audited_fields(fresh), **entry)
    return fresh


def _validate(row: models.Model, only: Iterable[str] | None = None) -> None:
    """Raise `InvalidInput` if a field is invalid (`only` these; None: any).

    An edit checks only what it changes: a value older than its rule must not keep an environment from being frozen.
    """
    untouched = set() if only is None else {field.name for field in row._meta.fields} - set(only)
    try:
        row.full_clean(exclude=untouched, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        problems = [
            {"path": field, "message": message}
            for field, messages in error.message_dict.items()
            for message in messages
        ]
        raise InvalidInput(
            f"{_kind(row).capitalize()} has invalid fields; nothing was saved.", problems
        ) from None


def _kind(row: models.Model) -> str:
    return str(row._meta.verbose_name)


def _audit_subject(row: NamedRow, action: str) -> dict[str, Any]:
    """Return the entry's action and target, and the environment or workload that the log lists it under."""
    subject: dict[str, Any] = {"action": action, "target": (_kind(row), row.name)}
    if isinstance(row, Environment | Workload):
        subject[_kind(row)] = row.name
    return subject


def audited_fields(row: models.Model) -> dict[str, Any]:
    """Return a row's own values for the audit log."""
    values = model_to_dict(row)
    return {name: values[name] for name in sorted(values) if name not in ("id", "revision")}
