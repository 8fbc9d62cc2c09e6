"""Writes to the model catalogue."""

from typing import Any

from controlplane.core.actors import Actor
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import Model


def add_model(name: str, *, actor: Actor, reason: str = "", **fields: Any) -> Model:
    return create_row(Model(name=name, **fields), "model.add", actor=actor, reason=reason)


def edit_model(
    model: Model, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Model:
    return edit_row(model, "model.edit", changes, expected=expected, actor=actor, reason=reason)
