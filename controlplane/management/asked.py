"""Terminal prompts and error messages shared by the commands for people's accounts."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from controlplane.core.errors import PointsmanError


def new_password(username: str) -> str:
    """Prompt for a password twice. Raises `CommandError` if the console would reject it."""
    try:
        password, again = getpass.getpass("New password: "), getpass.getpass("Again: ")
    except EOFError:
        raise CommandError(
            "This command asks for a password, so it needs a terminal (in a container: `-it`)."
        ) from None
    if again != password:
        raise CommandError("The passwords do not match; nothing was changed.")
    try:
        validate_password(password, User(username=username))
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from None
    return password


@contextmanager
def refused_in_words() -> Iterator[None]:
    try:
        yield
    except PointsmanError as error:
        raise CommandError(error.as_text()) from None
