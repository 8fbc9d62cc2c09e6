"""`manage.py first_admin`: on a new instance, an administrator with a generated password, printed once."""

from typing import Any

from django.core.management.base import BaseCommand
from django.urls import reverse

from controlplane.access import first_admin


class Command(BaseCommand):
    help = "Make the first administrator where there is none, and print the generated password, once."

    def handle(self, *args: Any, **options: Any) -> None:
        if password := first_admin.make_first_admin():
            where = reverse("console:login")
            self.stdout.write(
                f"First administrator: {first_admin.NAME}, password {password} (shown this once; {where})"
            )
