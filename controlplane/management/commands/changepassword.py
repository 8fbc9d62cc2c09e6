"""manage.py changepassword: set a new password for a person, with an entry in the audit log."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from controlplane.access import actions
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.management.asked import new_password, refused_in_words


class Command(BaseCommand):
    """Replaces Django's command, which bypasses the audit log."""

    help = "Set a person's password; prompts for it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", default="Set by a command on the server.")

    def handle(self, *args: Any, username: str, reason: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no user called {username}.")
        with request_context(source="command changepassword"), refused_in_words():
            actions.change_password(user, new_password(username), actor=SYSTEM, reason=reason)
        self.stdout.write(f"The password of {username} was changed, and all their sessions ended.")
