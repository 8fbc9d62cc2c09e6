"""Migrations keep every row, forward and backward."""

from typing import Any

import pytest
from django.core import serializers
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.core import clock
from rollout_app.models import ArmTotals, DeferredGroup, GuardrailOverride, Rollout, VerdictRecord
from tests.support import places
from tests.support.traffic import Traffic

BEFORE = ("rollout_app", "0005_uncounted_groups")
KEPT = {"sums": {"error": {"1": [600, 6, -0.23999292013975582, None, "ü"]}}}


def migrate(to: tuple[str, str] | None = None) -> None:
    """Migrate to this migration, or to the newest of every app, because others depend on ours."""
    executor = MigrationExecutor(connection)
    executor.migrate([to] if to else executor.loader.graph.leaf_nodes())


def stored_as() -> set[str]:
    """Return the types of both columns as PostgreSQL names them."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT data_type FROM information_schema.columns WHERE table_schema = current_schema() AND "
            "(table_name, column_name) IN (('rollout_app_rollout', 'evidence'), ('rollout_app_verdict', 'data'), "
            "('rollout_app_verdictrecord', 'data'))"
        )
        return {row[0] for row in cursor.fetchall()}


@pytest.mark.django_db(transaction=True)
def test_it_keeps_rows_in_both_directions() -> None:
    rollout = places.started()
    evaluated = clock.now()
    Rollout.objects.filter(pk=rollout.pk).update(evidence=KEPT, evaluations=7, evaluated_at=evaluated)
    GuardrailOverride.objects.create(workload=rollout.workload, metric="failure", margin=0.01)
    DeferredGroup.objects.create(body=b"not counted yet")
    told: dict[str, Any] = {"guardrail": "error", "verdict": "pass", "data": KEPT, "at": clock.now()}
    VerdictRecord.objects.create(rollout=rollout, stage=0, evaluation=7, **told)
    try:
        migrate(BEFORE)
        assert connection.vendor == "sqlite" or stored_as() == {"jsonb"}
    finally:
        migrate()
    assert connection.vendor == "sqlite" or stored_as() == {"text"}
    row, record = Rollout.objects.get(pk=rollout.pk), VerdictRecord.objects.get()
    assert row.evidence == record.data == KEPT
    assert (row.evaluations, row.evaluated_at, record.evaluation) == (7, evaluated, 7)
    assert GuardrailOverride.objects.get().margin == 0.01
    assert bytes(DeferredGroup.objects.get().body) == b"not counted yet"


@pytest.mark.django_db
def test_dumpdata_and_loaddata_carry_evidence() -> None:
    rollout = places.started()
    Rollout.objects.filter(pk=rollout.pk).update(evidence=KEPT)
    dumped = serializers.serialize("json", Rollout.objects.all())
    (loaded,) = serializers.deserialize("json", dumped)
    loaded.save()
    assert Rollout.objects.get().evidence == KEPT


@pytest.mark.django_db
def test_it_refuses_values_that_json_lacks() -> None:
    rollout = places.started()
    with pytest.raises(ValueError):
        Rollout.objects.filter(pk=rollout.pk).update(evidence={"log_e": float("inf")})


@pytest.mark.django_db(transaction=True)
def test_stored_costs_are_known_if_every_task_had_a_cost_and_a_grade() -> None:
    rollout = places.started(calibrated=False)
    Traffic(rollout).minutes(2)
    whole, partly = ArmTotals.objects.order_by("minute")
    ArmTotals.objects.filter(pk=partly.pk).update(cost_n=partly.tasks - 1)
    try:
        migrate(("rollout_app", "0008_four_eyes"))
    finally:
        migrate()
    rows = {row.pk: row for row in ArmTotals.objects.all()}
    assert (rows[whole.pk].graded_n, rows[whole.pk].graded_sum) == (whole.tasks, whole.cost_sum)
    assert rows[whole.pk].graded_capped_on_success == whole.capped_on_success
    assert (rows[partly.pk].graded_n, rows[partly.pk].graded_sum) == (0, 0)
    for row in rows.values():
        assert (row.tracked, row.decided, row.differing, row.endpoints, row.cells) == (0, 0, {}, {}, {})
