"""The migrations create what the models describe."""

import pytest
from django.core.management import call_command


@pytest.mark.django_db
def test_every_change_of_a_model_has_a_migration() -> None:
    """Otherwise a new instance and one that was upgraded have different tables."""
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
