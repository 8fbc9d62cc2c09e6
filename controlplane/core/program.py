"""The program whose commands an operator types."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


def command(words: str) -> str:
    """Return a command as the operator of this installation types it: a wheel has no `manage.py`."""
    return f"{'pointsman-server' if settings.FROM_WHEEL else 'manage.py'} {words}"


def run(arguments: Sequence[str]) -> None:
    """Run a command, given with the program's name."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
    from django.core.management import execute_from_command_line

    if "--traceback" in arguments:
        execute_from_command_line(list(arguments))
        return
    with settings_refused():
        execute_from_command_line(list(arguments))


@contextmanager
def settings_refused() -> Iterator[None]:
    """End the process with one sentence, as Django does for a `CommandError`, if the settings are refused."""
    try:
        yield
    except ImproperlyConfigured as refusal:
        sys.exit(str(refusal))
