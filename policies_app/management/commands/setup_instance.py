"""manage.py setup_instance: create what a new instance needs. Running it again changes nothing."""

from typing import Any

from django.core.management.base import BaseCommand

from controlplane.access import first_admin
from controlplane.core import tables
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from controlplane.core.program import command
from policies_app import actions
from policies_app.models import Environment

# Name → four eyes: a rollout in production needs a second person.
ENVIRONMENTS = {"production": True, "staging": False}


class Command(BaseCommand):
    help = (
        "Create the first administrator (password printed once), and the environments production and staging."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        tables.refuse_unfit()
        with request_context(source="command setup_instance"):
            if password := first_admin.make_first_admin():
                # At once: it is stored nowhere, and what follows may fail.
                self.stdout.write(
                    f"Administrator: {first_admin.NAME}  password: {password}  (shown only once)"
                )
                self.stdout.flush()
            made = [name for name, four_eyes in ENVIRONMENTS.items() if self._environment(name, four_eyes)]
        if made:
            self.stdout.write(f"Environments: {', '.join(made)}")
        self.stdout.write(
            f"Next: `{command('keys create router my-router --environment staging')}` prints a router's key;\n"
            "the console is at /console/, the API at /api/v1/schema."
        )

    def _environment(self, name: str, four_eyes: bool) -> bool:
        if Environment.objects.filter(name=name).exists():
            return False
        actions.register_environment(name, actor=SYSTEM, four_eyes=four_eyes)
        return True
