"""Writes to environments."""

from typing import Any

from controlplane.core.actors import Actor
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import Environment


def register_environment(name: str, *, actor: Actor, **fields: Any) -> Environment:
    return create_row(Environment(name=name, **fields), "environment.register", actor=actor)


def edit_environment(
    environment: Environment, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Environment:
    """Change four eyes, the poll interval or the freeze (`frozen_until`, `freeze_reason`)."""
    return edit_row(environment, "environment.edit", changes, expected=expected, actor=actor, reason=reason)
