"""Setting up in the console: environments, workloads, models, keys, plans, guardrails, the first steps."""

from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from controlplane.access import change_requests
from controlplane.access.actions import issue_key, revoke_key
from controlplane.access.models import Key
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.catalogue.validation import problems_of_text
from policies_app.four_eyes.actions import request_serving
from policies_app.models import Assignment, Environment, Model, Workload
from rollout_app.apps import _save_plans
from rollout_app.models import GuardrailOverride, Plan, Rollout
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, actor_of, running

WORKLOAD: dict[str, Any] = {
    "name": "tickets", "task_type": "summary", "difficulty": "mixed", "quality_bar": "0.9",
    "success_signal": "human_review", "outcome_lag_s": "900", "unit": "conversation",
    "latency_tolerance_ms": "", "retryable": "on", "description": "", "reason": "",
}  # fmt: skip


def shown(client: Client, name: str, *args: Any, status: int = 200) -> str:
    response = client.get(reverse(f"console:{name}", args=args))
    assert response.status_code == status
    return text(response)


# --- environments -------------------------------------------------------------------------------------


def test_an_environment_is_registered(people: People) -> None:
    form = {"name": "staging", "description": "", "poll_interval_ms": "5000", "reason": "a second one"}
    response = people("ada", "admin").post(reverse("console:new_environment"), form, follow=True)
    assert "staging was registered" in text(response)
    staging = Environment.objects.get(name="staging")
    assert (staging.poll_interval_ms, staging.four_eyes) == (5_000, False)
    assert Entry.objects.get(action="environment.register").reason == "a second one"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("poll_interval_ms", "3", "greater than or equal to 200"),
        ("name", "two words", "Use only the letters A to Z"),
        ("name", "production", "already"),
        ("name", "", "This field is required"),
    ],
)
def test_a_bad_environment_keeps_the_input(
    people: People, production: Environment, field: str, value: str, says: str
) -> None:
    form = {"name": "staging", "poll_interval_ms": "5000", "description": "for the tests", field: value}
    response = people("ada", "admin").post(reverse("console:new_environment"), form)
    assert response.status_code == 422
    assert says in text(response) and "for the tests" in text(response)
    assert Environment.objects.count() == 1


def test_a_conflicting_edit_shows_both_values(people: People, production: Environment) -> None:
    client, address = people("ada", "admin"), reverse("console:edit_environment", args=["production"])
    actions.edit_environment(production, actor=SYSTEM, poll_interval_ms=2_000)
    form = {"poll_interval_ms": "7000", "description": "", "expected": "1", "reason": ""}
    response = client.post(address, form)
    page = text(response)
    assert response.status_code == 422
    assert "Somebody else saved it in the meantime" in page and "2000" in page and 'value="7000"' in page
    assert 'name="expected" value="2"' in page
    assert client.post(address, {**form, "expected": "2"}).status_code == 302
    production.refresh_from_db()
    assert production.poll_interval_ms == 7_000


def test_four_eyes_can_be_switched_on_but_not_off_in_the_form(
    people: People, production: Environment
) -> None:
    client, address = people("ada", "admin"), reverse("console:edit_environment", args=["production"])
    assert "Switching this off also needs a second person" in shown(client, "edit_environment", "production")
    client.post(address, {"poll_interval_ms": "10000", "expected": "1"})
    production.refresh_from_db()
    assert production.four_eyes


def test_a_freeze_can_be_planned_and_ended(
    people: People, production: Environment, summaries: Workload
) -> None:
    client, now = people("ada", "admin"), timezone.now()
    form = {
        "frozen_from": f"{now + timedelta(hours=1):%Y-%m-%dT%H:%M}",
        "frozen_until": f"{now + timedelta(hours=5):%Y-%m-%dT%H:%M}",
        "freeze_reason": "Black Friday",
    }
    response = client.post(reverse("console:freeze", args=["production"]), form, follow=True)
    assert "production will be frozen" in text(response) and "planned:" in text(response)
    production.refresh_from_db()
    assert not production.is_frozen(now)
    assert production.is_frozen(now + timedelta(hours=2))
    assert not production.is_frozen(now + timedelta(hours=6))
    assert running(summaries, production).state == "running"  # nothing holds it before the freeze
    client.post(reverse("console:thaw", args=["production"]), {"reason": "called off"})
    production.refresh_from_db()
    assert production.frozen_until is None


def test_a_freeze_that_ends_before_it_begins_is_refused(people: People, production: Environment) -> None:
    form = {"frozen_from": "2099-01-02T00:00", "frozen_until": "2099-01-01T00:00", "freeze_reason": "x"}
    response = people("ada", "admin").post(reverse("console:freeze", args=["production"]), form)
    assert response.status_code == 422
    assert "It ends before it begins." in text(response)


@pytest.mark.parametrize("role", ["viewer", "editor", "approver", "operator"])
@pytest.mark.parametrize("name", ["edit_environment", "freeze", "thaw"])
def test_only_an_admin_changes_environments(
    people: People, production: Environment, role: str, name: str
) -> None:
    client, address = people("tom", role), reverse(f"console:{name}", args=["production"])
    for method in (client.get, client.post):
        assert method(address).status_code == 403
    assert client.get(reverse("console:new_environment")).status_code == 403


# --- workloads ----------------------------------------------------------------------------------------


def test_a_workload_is_registered_by_its_team(people: People) -> None:
    team = builders.team("support")
    client = people("maria", "editor", team=team)
    response = client.post(reverse("console:new_workload"), {**WORKLOAD, "owner": team.pk}, follow=True)
    assert "tickets was registered. Now write its first policy." in text(response)
    tickets = Workload.objects.get(name="tickets")
    assert (tickets.unit, tickets.success_signal, tickets.escalatable) == (
        "conversation",
        "human_review",
        False,
    )


def test_nobody_can_register_a_workload_for_another_team(people: People) -> None:
    other = builders.team("other")
    client = people("maria", "editor", team=builders.team("support"))
    response = client.post(reverse("console:new_workload"), {**WORKLOAD, "owner": other.pk})
    assert response.status_code == 422
    assert not Workload.objects.exists()


def test_a_person_without_a_team_is_told_so(people: People) -> None:
    assert "You are on no team yet" in shown(people("maria", "editor"), "new_workload")


def test_an_edit_of_what_rollouts_are_judged_by_requires_a_reason(
    people: People, summaries: Workload
) -> None:
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:edit_workload", args=["summaries"])
    form = {**WORKLOAD, "owner": summaries.owner_id, "escalatable": "on", "expected": "1"}
    form |= {
        "outcome_lag_s": "0",
        "unit": "request",
        "success_signal": "accuracy_check",
        "quality_bar": "0.95",
    }
    response = client.post(address, form)
    assert response.status_code == 422
    assert "This change needs a reason." in text(response)
    assert client.post(address, {**form, "reason": "graders agree now"}).status_code == 302
    summaries.refresh_from_db()
    assert (str(summaries.quality_bar), summaries.version) == ("0.9500", 2)


def test_the_quality_bar_cannot_change_during_a_rollout(
    people: People, summaries: Workload, production: Environment
) -> None:
    running(summaries, production)
    form = {**WORKLOAD, "owner": summaries.owner_id, "expected": "1", "quality_bar": "0.5", "reason": "x"}
    response = people("maria", "editor", team=summaries.owner).post(
        reverse("console:edit_workload", args=["summaries"]), form
    )
    assert response.status_code == 422
    assert "is under way in production" in text(response)


# --- models -------------------------------------------------------------------------------------------


def test_a_model_is_added_and_its_price_changed_in_dollars(people: People) -> None:
    client = people("ada", "admin")
    form = {
        "name": "openai/gpt-4o-mini", "input_nusd_per_mtok": "0.15", "output_nusd_per_mtok": "0.6",
        "context_window": "128000", "enabled": "on", "price_source": "the price list",
    }  # fmt: skip
    assert client.post(reverse("console:new_model"), form).status_code == 302
    model = Model.objects.get()
    assert (model.input_nusd_per_mtok, model.output_nusd_per_mtok) == (150_000_000, 600_000_000)
    address = reverse("console:edit_model", args=[model.name])
    assert 'value="0.15"' in text(client.get(address))
    changed = {**form, "input_nusd_per_mtok": "0.12", "expected": "1"}
    assert client.post(address, changed).status_code == 302
    assert model.price_history.count() == 2
    model.refresh_from_db()
    assert (model.input_nusd_per_mtok, model.version) == (120_000_000, 2)
    assert "$0.120" in shown(client, "models")


@pytest.mark.parametrize(
    ("nusd", "dollars"),
    [
        (10_000_000_000, "10"),
        (100_000_000_000, "100"),
        (0, "0"),
        (10_500_000_000, "10.5"),
        (1, "0.000000001"),
    ],
)
def test_the_form_of_a_model_shows_its_price_as_it_is(people: People, nusd: int, dollars: str) -> None:
    """$10 was shown as $1, and saving the form for another reason made it so."""
    model = actions.add_model(
        "a/b", actor=SYSTEM, input_nusd_per_mtok=nusd, output_nusd_per_mtok=nusd, context_window=1_000
    )
    client, address = people("ada", "admin"), reverse("console:edit_model", args=[model.name])
    form = client.get(address).context["form"]
    assert form["input_nusd_per_mtok"].value() == dollars
    posted = {name: form[name].value() for name in form.fields if form[name].value() is not None}
    assert client.post(address, posted | {"quality": "0.5"}).status_code == 302
    model.refresh_from_db()
    assert (model.input_nusd_per_mtok, model.output_nusd_per_mtok, model.quality) == (nusd, nusd, 0.5)
    assert model.price_history.count() == 1


@pytest.mark.parametrize("quality", ["85", "-0.1", "1.0001"])
def test_a_quality_that_is_not_a_share_is_refused_next_to_its_field(people: People, quality: str) -> None:
    form = {"name": "acme/small", "context_window": "100", "quality": quality, "enabled": "on"}
    refused = people("ada", "admin").post(reverse("console:new_model"), form)
    assert refused.status_code == 422 and not Model.objects.exists()
    assert refused.context["form"].errors["quality"] == ["A share from 0 to 1."]


@pytest.mark.parametrize("price", ["-1", "cheap", "1e30"])
def test_a_bad_price_is_refused_next_to_its_field(people: People, price: str) -> None:
    form = {"name": "a/b", "input_nusd_per_mtok": price, "output_nusd_per_mtok": "1", "context_window": "1"}
    response = people("ada", "admin").post(reverse("console:new_model"), form)
    assert response.status_code == 422
    assert 'id="id_input_nusd_per_mtok_error"' in text(response)
    assert not Model.objects.exists()


# --- keys ---------------------------------------------------------------------------------------------


def test_a_router_key_is_shown_once_with_a_working_snippet(people: People, production: Environment) -> None:
    client = people("ada", "admin")
    form = {"kind": "router", "environment": "production", "label": "gateway", "lives": "90"}
    response = client.post(reverse("console:new_key"), form)
    page, key = text(response), Key.objects.get()
    assert response.status_code == 201
    assert f"pmr_production_{key.key_id}_" in page
    assert '"http://testserver"' in page and "router.decide(" in page
    assert key.expires_at is not None
    listed = shown(client, "keys")
    assert "gateway" in listed and f"_{key.key_id}_" not in listed and "never" in listed


def test_an_admin_key_acts_for_its_person_with_roles_they_hold(
    people: People, production: Environment
) -> None:
    client = people("maria", "editor")
    form = {"kind": "admin", "environment": "production", "label": "ci", "scopes": ["editor"]}
    assert client.post(reverse("console:new_key"), form).status_code == 201
    assert str(Key.objects.get().user) == "maria"
    refused = client.post(reverse("console:new_key"), {**form, "scopes": ["operator"], "label": "more"})
    assert refused.status_code == 422
    assert "needs the role operator" in text(refused) and 'value="more"' in text(refused)


def test_only_an_admin_issues_a_router_key(people: People, production: Environment) -> None:
    form = {"kind": "router", "environment": "production", "label": "gateway"}
    response = people("maria", "editor").post(reverse("console:new_key"), form)
    assert response.status_code == 422
    assert not Key.objects.exists()


def test_a_key_is_rotated_and_revoked(people: People, production: Environment) -> None:
    key, _ = issue_key("router", "production", "gateway", actor=SYSTEM)
    client = people("ada", "admin")
    response = client.post(reverse("console:rotate_key", args=[key.key_id]), {"overlap_hours": "24"})
    assert response.status_code == 201
    successor = Key.objects.get(rotated_from=key)
    client.post(reverse("console:revoke_key", args=[successor.key_id]), {"reason": "leaked"})
    successor.refresh_from_db()
    assert successor.revoked_at is not None
    assert "revoked" in shown(client, "keys")


def test_keys_that_work_are_listed_first(people: People, production: Environment) -> None:
    """PostgreSQL sorts null last, and the keys that work were below all revoked ones."""
    for label in ("first", "second", "third"):
        issue_key("router", production.name, label, actor=SYSTEM)
    revoke_key(Key.objects.get(label="second").key_id, actor=SYSTEM, reason="lost")
    listed = people("ada", "admin").get(reverse("console:keys")).context["listed"]
    assert [key.label for key, *_ in listed] == ["third", "first", "second"]


def test_keys_of_other_environments_are_hidden_and_cannot_be_revoked(
    people: People, production: Environment
) -> None:
    key, _ = issue_key("router", "production", "gateway", actor=SYSTEM)
    client = people("sam", "admin", environment="staging")
    assert key.key_id not in shown(client, "keys")
    for name in ("rotate_key", "revoke_key"):
        assert client.post(reverse(f"console:{name}", args=[key.key_id]), {"reason": "x"}).status_code == 404


# --- stop serving -------------------------------------------------------------------------------------


def test_an_operator_stops_serving(people: People, summaries: Workload) -> None:
    address = reverse("console:stop", args=["summaries", "production"])
    assert people("maria", "editor").post(address, {"reason": "x"}).status_code == 403
    response = people("tom", "operator").post(address, {"reason": "retired"}, follow=True)
    assert "production no longer serves summaries" in text(response)
    assert not summaries.assignments.exists()


def test_serving_cannot_stop_during_a_rollout(
    people: People, summaries: Workload, production: Environment
) -> None:
    running(summaries, production)
    address = reverse("console:stop", args=["summaries", "production"])
    response = people("tom", "operator").post(address, {"reason": "retired"})
    assert response.status_code == 422
    assert "roll it back first" in text(response)


# --- plans --------------------------------------------------------------------------------------------


def stages(*rows: dict[str, Any]) -> dict[str, Any]:
    """The form data of the plan builder for these stages."""
    data: dict[str, Any] = {"form-TOTAL_FORMS": len(rows), "form-INITIAL_FORMS": 0}
    for at, row in enumerate(rows):
        data |= {f"form-{at}-{name}": value for name, value in row.items()}
    return data


FULL = {"mode": "full"}


def test_the_stages_of_a_plan_are_ordered_by_share(people: People) -> None:
    rows = [
        FULL,
        {"mode": "percentage", "share_percent": "25"},
        {"mode": "percentage", "share_percent": "2.5"},
    ]
    form = {"name": "mine", "description": "for us", **stages(*rows, {"mode": "shadow", "min_tasks": "100"})}
    response = people("maria", "editor").post(reverse("console:new_plan"), form)
    assert response.status_code == 302
    built = [(stage["mode"], stage["share_pcm"]) for stage in Plan.objects.get(name="mine").stages]
    assert built == [("shadow", 0), ("percentage", 2_500), ("percentage", 25_000), ("full", 100_000)]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"mode": "percentage", "share_percent": "5"}], "The last stage must be full."),
        ([{"mode": "percentage"}, FULL], "A share is a whole number"),
        ([{"mode": "percentage", "share_percent": "5"}] * 2 + [FULL], "Shares must increase"),
        ([{"mode": "percentage", "share_percent": "500"}, FULL], "less than or equal to 100"),
        ([{"mode": "nonsense"}, FULL], "is not one of the available choices"),
    ],
)
def test_a_bad_plan_is_explained_and_keeps_the_input(
    people: People, rows: list[dict[str, Any]], says: str
) -> None:
    form = {"name": "mine", "description": "for us", **stages(*rows)}
    response = people("maria", "editor").post(reverse("console:new_plan"), form)
    assert response.status_code == 422
    assert says in text(response) and "for us" in text(response)
    assert not Plan.objects.filter(name="mine").exists()


def test_stages_can_be_added_and_removed_without_scripts(people: People) -> None:
    client, rows = people("maria", "editor"), [{"mode": "percentage", "share_percent": "7"}, FULL]
    more = text(client.post(reverse("console:new_plan"), {"name": "mine", **stages(*rows), "add": "1"}))
    assert 'name="form-TOTAL_FORMS" value="3"' in more and 'value="7"' in more
    less = text(client.post(reverse("console:new_plan"), {"name": "mine", **stages(*rows), "remove": "0"}))
    assert 'name="form-TOTAL_FORMS" value="1"' in less and 'value="7"' not in less
    assert not Plan.objects.filter(name="mine").exists()


def test_the_picture_shows_the_duration_at_the_traffic_of_a_workload(
    people: People, summaries: Workload, production: Environment
) -> None:
    from rollout_app.models import OutcomeBucket

    now = timezone.now().replace(second=0, microsecond=0)
    OutcomeBucket.objects.bulk_create(
        OutcomeBucket(
            environment=production, workload=summaries, arm="baseline", version=1, tasks=100, successes=92,
            failures=8, minute=now - timedelta(minutes=n),
        )
        for n in range(60)
    )  # fmt: skip
    rows = [{"mode": "percentage", "share_percent": "25", "min_minutes": "15"}, FULL]
    form = {**stages(*rows), "at": summaries.assignments.get().pk}
    page = text(people("tom", "viewer").post(reverse("console:draw_plan"), form))
    assert "at 100 tasks a minute and 8.0\u202f% failures" in page
    assert '<svg class="pm-ramp"' in page and "until full" in page
    alone = text(people("tom", "viewer").post(reverse("console:draw_plan"), stages(*rows)))
    assert "Choose a workload under" in alone


@pytest.mark.parametrize(
    ("ago_min", "tasks", "says"),
    [
        ([600], 240, "24 tasks an hour"),
        ([5 * 60], 2, "10 tasks a day"),
        ([1200, 600, 30], 1, "4 tasks a day"),
    ],
)
def test_the_picture_names_a_low_rate_of_traffic(
    people: People, summaries: Workload, production: Environment, ago_min: list[int], tasks: int, says: str
) -> None:
    """A lone task has no rate of its own: it counts for all the time since."""
    from rollout_app.models import OutcomeBucket

    now = timezone.now().replace(second=0, microsecond=0)
    OutcomeBucket.objects.bulk_create(
        OutcomeBucket(
            environment=production, workload=summaries, arm="baseline", version=1, tasks=tasks, successes=tasks,
            minute=now - timedelta(minutes=minutes),
        )
        for minutes in ago_min
    )  # fmt: skip
    form = {
        **stages({"mode": "percentage", "share_percent": "25"}, FULL),
        "at": summaries.assignments.get().pk,
    }
    page = text(people("tom", "viewer").post(reverse("console:draw_plan"), form))
    assert f"at {says} and" in page


def test_a_plan_is_edited_at_the_shown_version_and_removed(people: People) -> None:
    _save_plans("default")
    client, address = people("maria", "editor"), reverse("console:edit_plan", args=["standard"])
    form = {
        "description": "mine",
        **stages({"mode": "percentage", "share_percent": "50"}, FULL),
        "expected": "1",
    }
    assert client.post(address, form).status_code == 302
    # somebody else (here: the first post) saved it first
    assert client.post(address, form).status_code == 422
    assert (
        client.post(reverse("console:remove_plan", args=["standard"]), {"reason": "unused"}).status_code
        == 302
    )
    assert not Plan.objects.filter(name="standard").exists()


def test_the_plan_form_needs_as_many_queries_for_many_workloads(
    people: People, production: Environment, django_assert_max_num_queries: Any
) -> None:
    _save_plans("default")
    for number in range(30):
        builders.served(production, builders.workload(f"workload-{number}"))
    chosen = Assignment.objects.get(workload__name="workload-7")
    client = people("maria", "editor")
    address = reverse("console:edit_plan", args=["standard"])
    with django_assert_max_num_queries(16):
        page = text(client.get(address, {"at": chosen.pk}))
    assert f'<option value="{chosen.pk}" selected>workload-7 in production</option>' in page
    assert page.count(" in production</option>") == 30 and ">no workload yet</option>" in page


# --- guardrails ---------------------------------------------------------------------------------------


def test_a_margin_is_changed_in_points_and_reset(people: People, summaries: Workload) -> None:
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:edit_margin", args=["summaries", "failure"])
    assert "rollouts that are proposed or amended after it" in text(client.get(address))
    assert 'value="2"' in text(client.get(address))
    assert client.post(address, {"enabled": "on", "margin": "1", "weight": "0.3"}).status_code == 302
    assert GuardrailOverride.objects.get().margin == pytest.approx(0.01)
    refused = client.post(address, {"enabled": "on", "margin": "5", "weight": "0.3"})
    assert refused.status_code == 422 and "This change needs a reason." in text(refused)
    assert "own" in shown(client, "margins", "summaries")
    client.post(reverse("console:reset_margin", args=["summaries", "failure"]), {"reason": "as all"})
    assert not GuardrailOverride.objects.exists()


def test_it_shows_the_effect_of_a_margin_on_past_rollouts(
    people: People, summaries: Workload, production: Environment
) -> None:
    running(summaries, production)
    client = people("maria", "editor", team=summaries.owner)
    address = reverse("console:rehearse_margin", args=["summaries", "failure"])
    page = text(client.post(address, {"enabled": "on", "margin": "1", "weight": "0.3"}))
    assert "no window of this rollout has closed yet" in page and "v1 → v2" in page
    asked = client.post(
        reverse("console:edit_margin", args=["summaries", "failure"]),
        {"enabled": "on", "margin": "1", "weight": "0.3", "rehearse": "1"},
    )
    assert "no window of this rollout has closed yet" in text(asked)
    assert not GuardrailOverride.objects.exists()


def test_a_long_rollout_is_evaluated_again_only_on_request(
    people: People, summaries: Workload, production: Environment
) -> None:
    """14 days of minutes take 20 s. Neither the page nor a key press may wait for that."""
    rollout = running(summaries, production)
    Rollout.objects.filter(pk=rollout.pk).update(started_at=timezone.now() - timedelta(days=5))
    client = people("maria", "editor", team=summaries.owner)
    page = reverse("console:edit_margin", args=["summaries", "failure"])
    form = {"enabled": "on", "margin": "1", "weight": "0.3"}
    assert "windows" not in text(client.get(page))
    typing = text(client.post(reverse("console:rehearse_margin", args=["summaries", "failure"]), form))
    assert "It was long" in typing and "windows" not in typing
    assert "no window of this rollout has closed yet" in text(client.post(page, {**form, "rehearse": "1"}))
    Rollout.objects.filter(pk=rollout.pk).update(started_at=timezone.now() - timedelta(days=50))
    assert "too long to evaluate here" in text(client.post(page, {**form, "rehearse": "1"}))


@pytest.mark.parametrize("margin", ["", "-1", "0", "300", "much"])
def test_a_bad_margin_is_refused_without_an_error(people: People, summaries: Workload, margin: str) -> None:
    client = people("maria", "editor", team=summaries.owner)
    form = {"enabled": "on", "margin": margin, "weight": "0.3", "reason": "x"}
    assert client.post(reverse("console:edit_margin", args=["summaries", "failure"]), form).status_code == 422
    assert (
        client.post(reverse("console:rehearse_margin", args=["summaries", "failure"]), form).status_code
        == 200
    )


def test_only_the_owners_change_margins(people: People, summaries: Workload) -> None:
    client = people("eva", "editor")
    assert client.get(reverse("console:margins", args=["summaries"])).status_code == 200
    assert client.get(reverse("console:edit_margin", args=["summaries", "failure"])).status_code == 403
    assert client.get(reverse("console:edit_margin", args=["summaries", "nonsense"])).status_code == 403


# --- the first steps ----------------------------------------------------------------------------------


def test_an_empty_home_shows_the_first_steps_and_checks_them_off(people: People) -> None:
    client = people("ada", "admin")
    page = text(client.get("/console/"))
    assert "First steps" in page and page.count("check_circle") == 0
    assert page.count("Do this next") == 1
    place = builders.environment("production")
    workload = builders.workload("summaries")
    builders.served(place, workload)
    assert text(client.get("/console/")).count("check_circle") == 6
    builders.version(workload, actor=actor_of("ada"))
    running(workload, place)
    assert "First steps" not in text(client.get("/console/"))


def test_the_first_steps_of_a_new_instance_have_no_dead_end(people: People) -> None:
    """An administrator follows them alone, with models of their own and nobody to approve."""
    call_command("setup_instance", stdout=StringIO())
    admin = Client()
    admin.force_login(User.objects.get(username="admin"))
    home = text(admin.get("/console/"))
    assert home.index("Two models") < home.index("A team") < home.index("A workload")
    assert f'href="{reverse("console:teams")}"' in text(admin.get(reverse("console:new_workload")))
    team = builders.team("support")
    assert "Create a team" not in text(admin.get(reverse("console:new_workload")))
    for name, price in (("acme/large", 9), ("acme/small", 1)):
        Model.objects.create(
            name=name, input_nusd_per_mtok=price, output_nusd_per_mtok=price, context_window=9_000
        )
    workload = builders.workload("tickets", owner=team)
    page = admin.get(reverse("console:new_version", args=["tickets"]))
    template = page.context["form"].initial["text"]
    assert [one for one in problems_of_text(template, workload) if one.severity == "error"] == []
    assert template.index("acme/small") < template.index("acme/large")
    admin.post(reverse("console:new_version", args=["tickets"]), {"text": template})
    assert workload.versions.count() == 1
    serve = reverse("console:serve", args=["tickets", "staging"])
    assert f'href="{serve}"' in text(admin.get("/console/")), "production needs a second person"
    admin.post(serve, {"version": workload.versions.get().pk, "reason": "the first"})
    assert workload.assignments.count() == 1


def test_a_first_step_that_waits_for_a_second_person_is_not_the_next_one(people: People) -> None:
    place, workload = builders.environment("production", four_eyes=True), builders.workload("tickets")
    version = builders.version(workload, actor=actor_of("maria"))
    change = request_serving(place, version, actor=actor_of("maria"), reason="the first version")
    client = people("ada", "admin")
    serve = next(step for step in client.get("/console/").context["steps"] if step.label == "Serve it")
    assert (serve.waiting, serve.address) == (True, reverse("console:change", args=[change.pk]))
    page = text(client.get("/console/"))
    assert "waits for a second person" in page
    assert page.index("Serve it") < page.index("Shown once, with the lines") < page.index("Do this next")
    change_requests.withdraw(change, actor=actor_of("maria"), reason="not yet")
    serve = next(step for step in client.get("/console/").context["steps"] if step.label == "Serve it")
    assert (serve.waiting, serve.address) == (False, reverse("console:serve", args=["tickets", "production"]))


@pytest.mark.parametrize(
    ("prices", "weak", "strong"),
    [
        ({"acme/a": 5, "acme/b": 2, "acme/c": None}, "acme/b", "acme/a"),
        ({"acme/a": None, "acme/b": 2}, "acme/b", "acme/a"),
        ({"acme/a": 0, "acme/b": 2, "acme/c": None}, "acme/a", "acme/b"),
        ({"acme/a": None, "acme/b": None}, "acme/a", "acme/b"),
    ],
)
def test_a_first_policy_takes_no_unpriced_model_for_the_cheap_one(
    people: People, prices: dict[str, int | None], weak: str, strong: str
) -> None:
    builders.workload("tickets")
    for name, price in prices.items():
        Model.objects.create(
            name=name, input_nusd_per_mtok=price, output_nusd_per_mtok=price, context_window=9_000
        )
    page = people("ada", "admin").get(reverse("console:new_version", args=["tickets"]))
    template = page.context["form"].initial["text"]
    assert f"small:\n    model: {weak}\n  large:\n    model: {strong}\n" in template


def test_the_first_steps_offer_nobody_a_workload_of_another_team(people: People) -> None:
    builders.catalogue()
    builders.environment("staging")
    builders.workload("tickets", owner=builders.team("support"))
    page = text(people("eve", "editor", team=builders.team("other")).get("/console/"))
    assert reverse("console:new_version", args=["tickets"]) not in page
    assert reverse("console:propose") + "?workload=" not in page


@pytest.mark.parametrize("name", ["environments", "models", "plans", "keys"])
def test_lists_need_few_queries(
    people: People, summaries: Workload, name: str, django_assert_max_num_queries: Any
) -> None:
    _save_plans("default")
    client = people("ada", "admin")
    issue_key("router", "production", "gateway", actor=SYSTEM)
    with django_assert_max_num_queries(16):
        shown(client, name)


def test_no_page_asks_a_person_to_use_curl(people: People) -> None:
    client = people("ada", "admin")
    for name in ("index", "workloads", "fleet", "environments", "models", "keys", "plans", "rollouts"):
        assert "POST /api" not in shown(client, name)
    assert "POST /api" not in text(people("stranger").get("/console/"))
