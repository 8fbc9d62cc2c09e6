"""Every form that edits something: saved as it was opened, it changes nothing, and writes nothing untrue.

The form is filled in as a browser would do it from the page. Each case stores values at the borders.
"""

from datetime import date, timedelta
from typing import Any

import pytest
from django.core import serializers
from django.test import Client
from django.urls import reverse

from controlplane.access.models import Membership, Team
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.notifications.actions import add_receiver, edit_receiver
from controlplane.notifications.models import Receiver
from policies_app import actions
from policies_app.models import Assignment, Environment, Model, ModelPrice, Workload
from rollout_app.actions import add_plan, set_guardrail
from rollout_app.engine import plans
from rollout_app.engine.metrics import Metric
from rollout_app.models import GuardrailOverride, Plan
from tests.support import builders
from tests.support.filled_in import filled_in
from tests.support.people import People, actor_of

EDITED = [
    Environment, Workload, Model, ModelPrice, Plan, GuardrailOverride, Receiver, Team, Membership, Assignment,
]  # fmt: skip
UNICODE = "Grüße, 東京 🚀 ‘quoted’ <b>&amp;</b>"


def stored() -> list[Any]:
    return [serializers.serialize("python", model._default_manager.order_by("pk")) for model in EDITED]


@pytest.fixture
def root(people: People, summaries: Workload) -> Client:
    return people("root", "admin", "editor", "operator", "approver", team=summaries.owner)


def unchanged(client: Client, address: str, having: str = "reason") -> None:
    """Open the form and save it: nothing changes, and the log has no entry of a change."""
    page = client.get(address)
    assert page.status_code == 200
    before, done = stored(), Entry.objects.filter(outcome="done").count()
    answer = client.post(address, filled_in(page, having=having))
    assert answer.status_code == 302, answer.content.decode()
    assert stored() == before
    assert Entry.objects.filter(outcome="done").count() == done


# --- environments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"four_eyes": False, "poll_interval_ms": 200},
        {"four_eyes": True, "poll_interval_ms": 300_000, "description": UNICODE},
        {"description": "x" * 200},
    ],
    ids=["least", "most", "long"],
)
def test_an_environment(root: Client, fields: dict[str, Any]) -> None:
    place = builders.environment(**fields)
    unchanged(root, reverse("console:edit_environment", args=[place.name]))


@pytest.mark.parametrize("begins", [None, timedelta(hours=-2), timedelta(hours=2)], ids=str)
def test_a_freeze_keeps_its_seconds(root: Client, production: Environment, begins: timedelta | None) -> None:
    at = clock.now().replace(second=31, microsecond=250_000)
    actions.edit_environment(
        production,
        actor=SYSTEM,
        reason="Black Friday",
        frozen_from=None if begins is None else at + begins,
        frozen_until=at + timedelta(days=3),
        freeze_reason="Black Friday,\nand the days after",
    )
    unchanged(root, reverse("console:freeze", args=["production"]), having="freeze_reason")


# --- workloads and models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"quality_bar": "0", "latency_tolerance_ms": 0, "outcome_lag_s": 0, "mirror_budget_usd": "0.00"},
        {"quality_bar": "1", "outcome_lag_s": 86_400, "mirror_budget_usd": "9999999999.99"},
        {"quality_bar": "0.9725", "latency_tolerance_ms": 2**31 - 1, "mirror_budget_usd": "10.00"},
        {"quality_bar": "0.0001", "mirror_budget_usd": "0.01", "retryable": False, "batchable": True},
        {"description": UNICODE, "task_type": UNICODE, "unit": "tenant", "success_signal": "downstream"},
        {"description": "x" * 400, "mirror_budget_usd": "100.00", "difficulty": "hard"},
        {"description": "two\nlines"},
    ],
    ids=["zero", "most", "ten", "least", "unicode", "long", "lines"],
)
def test_a_workload(root: Client, fields: dict[str, Any]) -> None:
    workload = builders.workload(**fields)
    unchanged(root, reverse("console:edit_workload", args=[workload.name]))


PRICES = [None, 0, 1, 150_000_000, 10 * 10**9, 100 * 10**9, 9_999_999_999_999_999, 2**63 - 1]


@pytest.mark.parametrize("price", PRICES, ids=str)
def test_a_model(root: Client, price: int | None) -> None:
    actions.add_model(
        "acme/large",
        actor=SYSTEM,
        context_window=1,
        input_nusd_per_mtok=price,
        output_nusd_per_mtok=0,
        batch_output_nusd_per_mtok=price,
        price_source="the price list, 2026-01",
        quality=0.1 + 0.2,
        retires_on=date(2031, 2, 28),
        enabled=False,
    )
    unchanged(root, reverse("console:edit_model", args=["acme/large"]))


def test_a_model_with_an_extreme_quality(root: Client) -> None:
    actions.add_model("acme/small", actor=SYSTEM, context_window=2**31 - 1, quality=1e-9)
    unchanged(root, reverse("console:edit_model", args=["acme/small"]))


# --- plans and guardrails ----------------------------------------------------------------------------

ODD: list[dict[str, Any]] = [
    {"mode": "shadow", "min_minutes": 0.5, "min_tasks": 0, "max_hours": 0.01, "mirror_pcm": 12_345},
    {"mode": "percentage", "share_pcm": 1, "on_timeout": "roll_back", "max_hours": None, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 10_000, "min_minutes": 44_640, "min_tasks": 10**9, "skippable": True},
    {"mode": "percentage", "share_pcm": 99_999, "approval": True, "max_hours": 8_760, "tolerance": 1.1},
    {"mode": "full", "approval": True, "tolerance": 10, "min_minutes": 1 / 3, "max_hours": 168},
]


@pytest.mark.parametrize(
    "stages", [*(stages for _, stages in plans.SAVED.values()), ODD], ids=[*plans.SAVED, "odd"]
)
def test_a_plan(root: Client, stages: list[dict[str, Any]]) -> None:
    add_plan("ours", stages, actor=SYSTEM, description=f"{UNICODE}\nmore")
    unchanged(root, reverse("console:edit_plan", args=["ours"]))


MARGINS: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "margin": [{"margin": 0.029, "weight": 0.3}],
    "tiny": [{"margin": 1e-7, "weight": 1e-6}],
    "fraction": [{"margin": 1 / 3, "weight": 1 / 7}],
    "without weight": [{"margin": 0.05}],
    "off": [{"enabled": False}],
    "bound": [{"bound": 0.57}],
    "exact bound": [{"bound": 1 / 3, "weight": 0.123456}],
    "both": [{"margin": 0.05, "weight": 0.2}, {"bound": 0.29, "weight": 0.7, "enabled": False}],
}


@pytest.mark.parametrize("own", MARGINS.values(), ids=MARGINS)
@pytest.mark.parametrize("metric", ["failure", "cost_per_success", "quality"])
def test_a_guardrail(root: Client, summaries: Workload, metric: str, own: list[dict[str, Any]]) -> None:
    for row in own:
        set_guardrail(summaries, metric, actor=SYSTEM, reason="ours", **row)
    unchanged(root, reverse("console:edit_margin", args=["summaries", metric]))


@pytest.mark.parametrize("metric", list(Metric), ids=str)
def test_a_standard_guardrail_does_not_become_the_workloads_own(root: Client, metric: Metric) -> None:
    unchanged(root, reverse("console:edit_margin", args=["summaries", metric.value]))


# --- teams and receivers -----------------------------------------------------------------------------


def test_the_members_of_a_team(root: Client, summaries: Workload) -> None:
    actor_of("maria")
    address = reverse("console:team", args=[summaries.owner.name])
    page = root.get(address)
    before, done = stored(), Entry.objects.count()
    given = filled_in(page, having="reason")
    assert root.post(address, {**given, "reason": ["looked"]}).status_code == 302
    assert (stored(), Entry.objects.count()) == (before, done)


RECEIVERS: dict[str, dict[str, Any]] = {
    "webhook": {"kind": "webhook", "address": "https://hooks.example.com/a?b=1&c=%20"},
    "slack": {"kind": "slack", "address": "https://hooks.slack.com/services/T0/B0/secret"},
    "mail": {"kind": "email", "address": "on-call@example.com"},
    "some": {
        "kind": "webhook",
        "address": "https://hooks.example.com/",
        "events": ["rollout.rolled_back", "audit.checkpoint"],
        "environments": ["production", "staging"],
    },
}


@pytest.mark.parametrize("fields", RECEIVERS.values(), ids=RECEIVERS)
@pytest.mark.parametrize("enabled", [True, False], ids=["enabled", "disabled"])
def test_a_receiver_keeps_what_is_not_shown(
    root: Client, settings: Any, fields: dict[str, Any], enabled: bool
) -> None:
    settings.EMAIL_HOST_SET = True
    receiver, _ = add_receiver(UNICODE, actor=SYSTEM, **fields)
    if not enabled:
        edit_receiver(receiver, expected=None, actor=SYSTEM, reason="noise", enabled=False)
    settings.EMAIL_HOST_SET = False  # the address was allowed when it was added
    unchanged(root, reverse("console:receiver", args=[receiver.pk]), having="address")
