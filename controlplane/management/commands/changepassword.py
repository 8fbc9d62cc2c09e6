"""manage.py changepassword: a new password for somebody who lost theirs, with an entry in the audit log."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError

from controlplane.access import actions
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.management.asked import new_password, refused_in_words


class Command(BaseCommand):
    """In place of Django's, which writes past the audit log."""

    help = "Set somebody's password; asks for it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", default="Set by a command on the server.")

    def handle(self, *args: Any, username: str, reason: str, **options: Any) -> None:
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is nobody called {username}.")
        with request_context(source="command changepassword"), refused_in_words():
            actions.change_password(user, new_password(username), actor=SYSTEM, reason=reason)
        self.stdout.write(f"The password of {username} is changed; they are logged out everywhere.")
