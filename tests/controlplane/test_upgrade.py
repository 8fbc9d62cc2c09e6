"""An instance with data from an older schema is upgraded: nothing is lost, and its rollouts continue.

`demo_before_layout.json.xz` was written by `make demo` at commit fed308a, the last one before today's layout, stopped
with one rollout at full. It is the output of `manage.py dumpdata`, reduced to the newest 400 route minutes and 60
batches.
"""

import json
import lzma
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps as installed
from django.apps.registry import Apps
from django.core.management.color import no_style
from django.db import connection, models, transaction
from django.db.migrations.executor import MigrationExecutor
from django.urls import reverse

from controlplane.access.actions import take_stock
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from rollout_app import actions
from rollout_app.engine import plans
from rollout_app.evaluation import reconcile
from rollout_app.models import ArmTotals, OutcomeBucket, Plan, Rollout, VerdictRecord
from tests.support.people import logged_in

FILLED = Path(__file__).with_name("demo_before_layout.json.xz")
BEFORE = [
    ("access", "0001_initial"),
    ("audit", "0002_append_only"),
    ("policies_app", "0004_an_ack_beside_the_tag"),
    ("rollout_app", "0006_evidence_is_text"),
]

pytestmark = pytest.mark.django_db(transaction=True)


def _rows() -> list[dict[str, Any]]:
    with lzma.open(FILLED) as file:
        rows: list[dict[str, Any]] = json.load(file)
    return rows


def _row_of(apps: Apps, record: dict[str, Any]) -> tuple[models.Model, dict[str, list[Any]]]:
    """Return the row in the old schema, and its many-to-many fields."""
    model = apps.get_model(record["model"])
    values, many = {model._meta.pk.attname: record["pk"]}, {}
    for name, value in record["fields"].items():
        field = model._meta.get_field(name)
        if isinstance(field, models.ManyToManyField):
            many[name] = value
        elif isinstance(field, models.ForeignKey):
            values[field.attname] = value
        else:
            values[name] = field.to_python(value)
    return model(**values), many


def _fill(apps: Apps, records: list[dict[str, Any]]) -> None:
    """Insert the rows, model by model. Rows created by a migration (the plans) are replaced by the instance's own."""
    of_model: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        of_model.setdefault(record["model"], []).append(record)
    with connection.constraint_checks_disabled(), transaction.atomic():
        for name, found in of_model.items():
            rows = apps.get_model(name)._default_manager
            rows.all().delete()
            built = [_row_of(apps, record) for record in found]
            rows.bulk_create([row for row, _ in built])
            for row, many in built:
                for field, keys in many.items():
                    getattr(row, field).set(keys)


@pytest.fixture
def upgraded() -> Iterator[Counter[str]]:
    """Return the number of rows by model before the upgrade. Sequences continue after the imported ids."""
    executor = MigrationExecutor(connection)
    newest = executor.loader.graph.leaf_nodes()
    executor.migrate(BEFORE)
    records = _rows()
    try:
        _fill(MigrationExecutor(connection).loader.project_state(BEFORE).apps, records)
    finally:
        MigrationExecutor(connection).migrate(newest)
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), installed.get_models()):
            cursor.execute(statement)
    yield Counter(record["model"] for record in records)


def test_nothing_is_lost_and_the_log_still_verifies(upgraded: Counter[str]) -> None:
    assert ArmTotals.objects.count() == upgraded["rollout_app.armtotals"]
    assert OutcomeBucket.objects.count() == upgraded["rollout_app.outcomebucket"]
    assert VerdictRecord.objects.count() == upgraded["rollout_app.verdict"]
    assert Entry.objects.count() == upgraded["audit.entry"]
    take_stock()  # like `migrate` at its end
    found = verification.verify(with_file=False)
    assert found.count == upgraded["audit.entry"] + 1
    assert {(f.kind, f.seq) for f in found.findings} == {("bad signature", 40), ("bad signature", 64)}, (
        "this instance does not trust the other one's key; everything else matches the log"
    )


def test_its_saved_plans_are_those_of_a_new_instance(upgraded: Counter[str]) -> None:
    found = {name: (said, plans.check(stages)) for name, said, stages in _plans()}
    assert found == {name: plans.SAVED[name] for name in ("cautious", "standard", "low-traffic", "immediate")}


SAID = (
    "Shadow, then as fast as the evidence allows, from {} % on: harm to all traffic stays within the margins."
)


def _plans() -> list[tuple[str, str, list[dict[str, Any]]]]:
    return list(Plan.objects.order_by("name").values_list("name", "description", "stages"))


def _old_evidence() -> list[dict[str, Any]]:
    """Return the stages of the saved plan `evidence` when it started at 2 %."""
    shadow, first, *others = plans.SAVED["evidence"][1]
    return [shadow, {**first, "share_pcm": 2_000}, first, *others]


@pytest.fixture
def upgrade() -> Iterator[Callable[[], None]]:
    """Go back to the schema before the saved plans were rewritten; the returned function migrates forward."""
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes()
    MigrationExecutor(connection).migrate([("rollout_app", "0010_withdrawn_approvals")])

    def forward() -> None:
        MigrationExecutor(connection).migrate(newest)

    yield forward
    forward()


@pytest.mark.parametrize("start", [2, 3])
def test_a_saved_plan_of_an_earlier_release_becomes_todays(upgrade: Callable[[], None], start: int) -> None:
    stages = _old_evidence() if start == 2 else plans.SAVED["evidence"][1]
    Plan.objects.filter(name="evidence").update(description=SAID.format(start), stages=stages)
    upgrade()
    found = Plan.objects.get(name="evidence")
    assert (found.description, found.stages, found.version) == (*plans.SAVED["evidence"], 1)
    assert verification.verify(with_file=False).findings == []


@pytest.mark.parametrize(
    "changed",
    [
        {"description": "ours"},
        {"stages": [{"mode": "full"}]},
        {"stages": ["?"]},
        {"version": 2},
        {"name": "as-fast-as-it-goes"},
    ],
    ids=str,
)
def test_a_plan_that_differs_from_the_saved_one_stays(
    upgrade: Callable[[], None], changed: dict[str, Any]
) -> None:
    rows = Plan.objects.filter(name="evidence")
    before = {"name": "evidence", "description": SAID.format(2), "stages": _old_evidence(), "version": 1}
    rows.update(**(before | changed))
    upgrade()
    after = Plan.objects.filter(name=changed.get("name", "evidence")).values(*before).get()
    assert after == before | changed


def test_the_log_verifies_with_a_saved_plan_that_somebody_edited(upgrade: Callable[[], None]) -> None:
    Plan.objects.filter(name="evidence").update(description=SAID.format(2), stages=_old_evidence())
    actions.edit_plan("evidence", actor=SYSTEM, description="ours")
    upgrade()
    found = Plan.objects.get(name="evidence")
    assert (found.description, found.stages) == ("ours", _old_evidence())
    assert verification.verify(with_file=False).findings == []


def test_a_plan_that_somebody_removed_and_added_again_stays(upgrade: Callable[[], None]) -> None:
    actions.remove_plan("evidence", actor=SYSTEM, reason="not ours")
    old = {"description": SAID.format(2), "stages": _old_evidence()}
    actions.add_plan("evidence", old["stages"], actor=SYSTEM, description=SAID.format(2))
    upgrade()
    assert Plan.objects.filter(name="evidence", version=1).values(*old).get() == old
    assert verification.verify(with_file=False).findings == []


def test_its_rollout_continues_and_its_pages_show_it(upgraded: Counter[str]) -> None:
    running = Rollout.objects.get(state="running")
    assert running.stages[running.stage]["share_pcm"] == 100_000
    reconcile.evaluate([str(running.pk)])
    running.refresh_from_db()
    assert (running.state, running.hold_code) == ("running", "fleet"), "its routers ended with the demo"
    viewer = logged_in("vera", "viewer")
    for rollout in Rollout.objects.all():
        for address in (
            reverse("console:rollout", args=[rollout.pk]),
            reverse("console:workload", args=[rollout.workload.name]),
            f"/api/v1/rollouts/{rollout.pk}",
        ):
            assert viewer.get(address).status_code == 200, address
