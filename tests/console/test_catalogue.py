"""Pages of the model catalogue, and the import of prices in two steps."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Environment, Model, Workload
from tests.support.pages import text
from tests.support.people import People

SMALL = "openai/gpt-4o-mini"
CSV = (
    "name,input_usd_per_mtok,output_usd_per_mtok,context_window,retires_on\n"
    f"{SMALL},0.1,0.6,128000,2027-02-01\n"
    "x/new,1,2,8000,\n"
)


def upload(content: str = CSV, name: str = "prices.csv") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, content.encode())


def shown(client: Any, **fields: Any) -> Any:
    return client.post(reverse("console:import_models"), {"file": upload(), **fields})


def hidden(response: Any) -> str:
    return str(response.context["applying"].initial["shown"])


def test_it_shows_what_would_change_and_where_it_is_served(people: People, summaries: Workload) -> None:
    client = people("ann", "admin")
    page = text(shown(client, overwrite="on", add="x/*"))
    assert "input price $0.150 → $0.100" in page and "production/summaries" in page and "x/new" in page
    assert not Model.objects.filter(name="x/new").exists()


def test_it_keeps_what_a_person_set_and_says_so(people: People, summaries: Workload) -> None:
    assert "kept: a person set it" in text(shown(people("ann", "admin")))


def test_it_writes_exactly_what_was_shown(people: People, summaries: Workload) -> None:
    client = people("ann", "admin")
    plan = hidden(shown(client, overwrite="on", add="x/*"))
    response = client.post(reverse("console:write_models"), {"shown": plan, "reason": "weekly"})
    assert response.status_code == 302
    model = Model.objects.get(name=SMALL)
    assert (model.input_nusd_per_mtok, str(model.retires_on)) == (100_000_000, "2027-02-01")
    assert model.price_source == "CSV prices.csv"
    entry = Entry.objects.get(action="model.add", target_id="x/new")
    assert (entry.actor_label, entry.reason) == ("ann", "weekly")


@pytest.mark.parametrize("plan", ["", "tampered", None], ids=["empty", "tampered", "another's signature"])
def test_it_writes_nothing_that_was_not_shown(people: People, summaries: Workload, plan: str | None) -> None:
    client = people("ann", "admin")
    forged = hidden(shown(client, overwrite="on", add="x/*"))[:-1] + "_" if plan is None else plan
    response = client.post(reverse("console:write_models"), {"shown": forged, "reason": "weekly"})
    assert response.status_code == 422
    assert not Model.objects.filter(name="x/new").exists()


def test_one_model_that_changed_meanwhile_stops_all(people: People, summaries: Workload) -> None:
    client = people("ann", "admin")
    plan = hidden(shown(client, overwrite="on", add="x/*"))
    actions.edit_model(Model.objects.get(name=SMALL), actor=SYSTEM, output_nusd_per_mtok=1)
    response = client.post(reverse("console:write_models"), {"shown": plan, "reason": "weekly"})
    assert response.status_code == 422 and "read it again" in text(response)
    assert not Model.objects.filter(name="x/new").exists()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Choose either a file or the installed price map"),
        ({"file": upload("name,price\n")}, "unknown column"),
        ({"file": upload("name,input_usd_per_mtok\nx/y,free\n")}, "line 2: input_usd_per_mtok"),
        ({"file": upload("{", "a.json")}, "is not JSON"),
        ({"file": upload("x" * (4 * 1024 * 1024 + 1))}, "the limit for an upload is 4,194,304"),
    ],
    ids=["nothing", "column", "row", "json", "huge"],
)
def test_it_says_what_is_wrong_with_a_file(
    people: People, production: Environment, fields: dict[str, Any], said: str
) -> None:
    response = people("ann", "admin").post(reverse("console:import_models"), fields)
    assert response.status_code == 422 and said in text(response)


@pytest.mark.parametrize("role", ["viewer", "operator", "editor", "approver"])
def test_only_an_admin_imports(people: People, summaries: Workload, role: str) -> None:
    client = people("tom", role)
    assert shown(client).status_code == 403
    assert client.post(reverse("console:write_models"), {"shown": "x", "reason": "r"}).status_code == 403
    assert "Import prices" not in text(client.get(reverse("console:models")))


def test_an_admin_of_one_environment_does_not(people: People, summaries: Workload) -> None:
    assert shown(people("tom", "admin", environment="production")).status_code == 403


def test_the_models_page_lists_only_visible_uses(people: People, summaries: Workload) -> None:
    assert "production/summaries" in text(people("tom", "viewer").get(reverse("console:models")))
    other = people("sam", "viewer", environment="staging").get(reverse("console:models"))
    assert other.status_code == 200 and "production" not in text(other)


def test_pages_that_use_a_model_warn_about_retirement_and_missing_prices(
    people: People, summaries: Workload
) -> None:
    model = Model.objects.get(name=SMALL)
    day = clock.now().date() + timedelta(days=10)
    actions.edit_model(model, actor=SYSTEM, retires_on=day, input_nusd_per_mtok=None)
    client = people("tom", "viewer")
    for address in (
        reverse("console:workload", args=["summaries"]),
        reverse("console:version", args=["summaries", 2]),
        reverse("console:models"),
    ):
        page = text(client.get(address))
        assert f"{SMALL} retires in 10 days ({day})" in page
        assert f"{SMALL} has no input price" in page
