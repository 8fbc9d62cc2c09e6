"""What a command on the server asks at the terminal, and how it says what was refused."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError

from controlplane.core.errors import PointsmanError


def new_password(username: str) -> str:
    """A password, asked for twice. Raises `CommandError` for one that the console would not take."""
    password = getpass.getpass("New password: ")
    if getpass.getpass("Again: ") != password:
        raise CommandError("The two are not the same; nothing was changed.")
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
        problems = "; ".join(f"{item['path']}: {item['message']}" for item in error.extra.get("problems", []))
        raise CommandError(" ".join(filter(None, (error.detail, problems)))) from None
