"""The name of the program whose commands an operator types."""

from django.conf import settings


def command(words: str) -> str:
    """Return a command as the operator of this installation types it: a wheel has no `manage.py`."""
    return f"{'pointsman-server' if settings.FROM_WHEEL else 'manage.py'} {words}"
