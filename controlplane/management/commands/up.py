"""`pointsman-server up`: set up and serve a new instance with one command. For a laptop and a first try."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Run migrate, setup_instance and serve. Existing data is kept."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (PORT)")

    def handle(self, *args: Any, **options: Any) -> None:
        # The system checks have run: these commands skip theirs when another command calls them.
        call_command("migrate", verbosity=0)
        call_command("setup_instance", stdout=self.stdout)
        call_command("serve", host=options["host"], port=options["port"], stdout=self.stdout)
