"""Writes to workloads."""

from typing import Any

from controlplane.core.actors import Actor
from policies_app.actions.assignments import republish_unit
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import Workload


def register_workload(name: str, *, actor: Actor, **fields: Any) -> Workload:
    return create_row(Workload(name=name, **fields), "workload.register", actor=actor)


def edit_workload(
    workload: Workload, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Workload:
    then = republish_unit if "unit" in changes else None
    return edit_row(
        workload, "workload.edit", changes, expected=expected, actor=actor, reason=reason, then=then
    )
