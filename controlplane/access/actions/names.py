"""Validate names of environments and teams."""

from django.core.exceptions import ValidationError
from django.core.validators import validate_slug


def is_slug(text: str) -> bool:
    try:
        validate_slug(text)
    except ValidationError:
        return False
    return True
