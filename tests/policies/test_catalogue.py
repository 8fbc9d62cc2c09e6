"""The catalogue: prices, their history, and how they reach routers."""

import json
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment, Environment, Model, ModelPrice, Revision
from policies_app.snapshots import build, cache
from policies_app.snapshots.cache import SnapshotQuery
from tests.support import builders

pytestmark = pytest.mark.django_db

SMALL = "openai/gpt-4o-mini"


def snapshot(environment: Environment, since: int | None = None) -> dict[str, Any]:
    header = cache.read_headers()[environment.name]
    found = cache.read_environment(header, None)
    assert found is not None
    body = json.loads(build.plain_body(found, SnapshotQuery(None, since)))
    assert isinstance(body, dict)
    return body


def test_a_snapshot_contains_the_prices_of_its_models() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    actions.add_model(
        "other/unused", actor=SYSTEM, input_nusd_per_mtok=1, output_nusd_per_mtok=1, context_window=1
    )
    prices = snapshot(assignment.environment)["prices"]
    assert list(prices) == ["anthropic/claude-sonnet-4-5", SMALL]
    assert prices[SMALL] == {
        "input": 150_000_000, "output": 600_000_000,
        "cache_read": None, "cache_write": None, "batch_input": None, "batch_output": None,
    }  # fmt: skip


def test_a_changed_price_is_a_new_revision_where_the_model_is_served() -> None:
    here, elsewhere = builders.environment(), builders.environment()
    for _ in range(2):
        builders.served(here, builders.workload())
    alone = {"small": {"model": "anthropic/claude-sonnet-4-5"}, "large": {"model": "other/large"}}
    actions.add_model(
        "other/large", actor=SYSTEM, input_nusd_per_mtok=1, output_nusd_per_mtok=1, context_window=200_000
    )
    builders.served(elsewhere, builders.workload(), models=alone)
    model = Model.objects.get(name=SMALL)
    actions.edit_model(model, actor=SYSTEM, cache_read_nusd_per_mtok=75_000_000, reason="new price list")

    now = snapshot(here)
    assert (now["revision"], now["prices"][SMALL]["cache_read"]) == (3, 75_000_000)
    assert {entry["revision"] for entry in now["workloads"].values()} == {3}  # a delta contains it, too
    assert snapshot(here, since=2)["prices"][SMALL]["cache_read"] == 75_000_000
    assert snapshot(here, since=3)["prices"] == {}
    assert snapshot(elsewhere)["revision"] == 1
    assert Revision.objects.get(environment=here, number=3).cause == "model.edit"


def test_other_changes_of_a_model_draw_no_revision() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    actions.edit_model(Model.objects.get(name=SMALL), actor=SYSTEM, quality=0.5)
    assert snapshot(assignment.environment)["revision"] == 1


def test_it_keeps_the_history_of_a_models_prices() -> None:
    builders.catalogue()
    model = Model.objects.get(name=SMALL)
    actions.edit_model(model, actor=SYSTEM, input_nusd_per_mtok=1, price_source="the provider's page")
    actions.edit_model(model, actor=SYSTEM, enabled=True)
    history = list(ModelPrice.objects.filter(model=model))
    assert [row.prices["input"] for row in history] == [1, 150_000_000]
    assert [row.source for row in history] == ["the provider's page", ""]
    assert history[0].since > history[1].since


def test_a_repeated_price_draws_no_revision_and_no_history() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    model = Model.objects.get(name=SMALL)
    same: dict[str, Any] = {
        "input_nusd_per_mtok": model.input_nusd_per_mtok,
        "output_nusd_per_mtok": model.output_nusd_per_mtok,
    }
    actions.edit_model(model, actor=SYSTEM, context_window=2_000_000, **same)
    assert Model.objects.get(name=SMALL).context_window == 2_000_000
    assert snapshot(assignment.environment)["revision"] == 1
    assert ModelPrice.objects.filter(model=model).count() == 1
    before = assignment.changed_at
    assignment.refresh_from_db()
    assert assignment.changed_at == before


@pytest.mark.parametrize(
    ("source", "after"),
    [("contract 12", "contract 12"), ("LiteLLM price map prices.json", ""), ("CSV prices.csv", ""), ("", "")],
)
def test_a_price_set_by_a_person_keeps_the_source_that_a_person_wrote(source: str, after: str) -> None:
    builders.catalogue()
    model = Model.objects.get(name=SMALL)
    Model.objects.update(price_source=source)
    actions.edit_model(model, actor=SYSTEM, input_nusd_per_mtok=1)
    assert Model.objects.get(name=SMALL).price_source == after
    actions.edit_model(model, actor=SYSTEM, input_nusd_per_mtok=2, price_source="contract 13")
    assert ModelPrice.objects.filter(model=model)[0].source == "contract 13"


@pytest.mark.django_db(transaction=True)
def test_a_migration_adds_prices_to_what_is_served() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    wanted = Assignment.objects.get(pk=assignment.pk).prices
    MigrationExecutor(connection).migrate([("policies_app", "0008_model_names")])
    try:
        MigrationExecutor(connection).migrate([("policies_app", "0009_catalogue_prices")])
    finally:
        executor = MigrationExecutor(connection)
        executor.migrate(executor.loader.graph.leaf_nodes())
    assert Assignment.objects.get(pk=assignment.pk).prices == wanted
    assert ModelPrice.objects.filter(model__name=SMALL).count() == 1
