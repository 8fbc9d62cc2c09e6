"""Validate names of environments and teams, and refuse the engine's names for people and keys."""

from collections.abc import Mapping

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug

from controlplane.core.actors import is_reserved
from controlplane.core.errors import NameReserved


def is_slug(text: str) -> bool:
    try:
        validate_slug(text)
    except ValidationError:
        return False
    return True


def refuse_reserved(**names: str) -> None:
    """Raise `NameReserved` if a name, given by its field, reads as the engine in a sentence of the audit log."""
    found: list[Mapping[str, str]] = [
        {"path": path, "message": f"{name!r} reads as Pointsman itself: choose another name"}
        for path, name in names.items()
        if is_reserved(name)
    ]
    if found:
        raise NameReserved("This name is reserved for Pointsman itself.", found)
