"""manage.py createsuperuser: create an administrator of the instance, with an entry in the audit log."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from controlplane.access import actions
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.management.asked import new_password, refused_in_words


class Command(BaseCommand):
    """Replaces Django's command, which bypasses the audit log."""

    help = "Create an administrator of the instance; prompts for the password."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--reason", default="Created by a command on the server.")

    def handle(self, *args: Any, username: str, reason: str, **options: Any) -> None:
        with request_context(source="command createsuperuser"), refused_in_words():
            actions.refuse_bad_username(username)
            password = new_password(username)
            actions.create_person(username, actor=SYSTEM, reason=reason, password=password, superuser=True)
        self.stdout.write(f"{username} can log in now, with all rights.")
