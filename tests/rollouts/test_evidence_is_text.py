"""What was kept as JSON of the database's own is still there once it is text, and can go back."""

from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.core import clock
from rollout_app.models import Rollout, Verdict
from tests.support import places

BEFORE, AFTER = ("rollout_app", "0005_uncounted_groups"), ("rollout_app", "0006_evidence_is_text")
KEPT = {"sums": {"error": {"1": [600, 6, -0.23999292013975582, None, "ü"]}}}


def migrate(to: tuple[str, str]) -> None:
    MigrationExecutor(connection).migrate([to])


def stored_as() -> set[str]:
    """The types of both columns, as PostgreSQL names them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data_type FROM information_schema.columns WHERE table_schema = current_schema() AND "
            "(table_name, column_name) IN (('rollout_app_rollout', 'evidence'), ('rollout_app_verdict', 'data'))"
        )
        return {row[0] for row in cursor.fetchall()}


@pytest.mark.django_db(transaction=True)
def test_it_carries_what_is_there_both_ways() -> None:
    rollout = places.started()
    Rollout.objects.filter(pk=rollout.pk).update(evidence=KEPT)
    told: dict[str, Any] = {"guardrail": "error", "verdict": "pass", "data": KEPT, "at": clock.now()}
    Verdict.objects.create(rollout=rollout, stage=0, look=1, **told)
    try:
        migrate(BEFORE)
        assert connection.vendor == "sqlite" or stored_as() == {"jsonb"}
    finally:
        migrate(AFTER)
    assert connection.vendor == "sqlite" or stored_as() == {"text"}
    assert Rollout.objects.get(pk=rollout.pk).evidence == Verdict.objects.get().data == KEPT


@pytest.mark.django_db
def test_it_refuses_what_json_has_not() -> None:
    rollout = places.started()
    with pytest.raises(ValueError):
        Rollout.objects.filter(pk=rollout.pk).update(evidence={"log_e": float("inf")})
