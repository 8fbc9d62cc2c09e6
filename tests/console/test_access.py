"""Who may open the console's pages, and what others get."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from policies_app.models import Environment, Workload
from tests.support.people import People, proposed

PAGES = [
    ("index", []),
    ("workloads", []),
    ("workload", ["summaries"]),
    ("new_version", ["summaries"]),
    ("version", ["summaries", 1]),
    ("diff", ["summaries"]),
    ("serve", ["summaries", "production"]),
    ("pin", ["summaries", "production"]),
    ("unpin", ["summaries", "production"]),
    ("models", []),
    ("import_models", []),
    ("fleet", []),
    ("fleet_of", ["production"]),
    ("rollouts", []),
    ("propose", []),
    ("rollout", ["01930000-0000-7000-8000-000000000000"]),
    ("act", ["01930000-0000-7000-8000-000000000000", "pause"]),
    ("audit", []),
    ("entry", [1]),
    ("notifications", []),
    ("add_receiver", []),
    ("receiver", ["01930000-0000-7000-8000-000000000000"]),
    ("rotate_receiver", ["01930000-0000-7000-8000-000000000000"]),
    ("break_glasses", []),
    ("review_break_glass", ["01930000-0000-7000-8000-000000000000"]),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("name", "args"), PAGES, ids=[name for name, _ in PAGES])
def test_a_visitor_is_redirected_to_the_login(name: str, args: list[object]) -> None:
    address = reverse(f"console:{name}", args=args)
    response = Client().get(address)
    assert response.status_code == 302
    assert response.headers["Location"] == f"{reverse('console:login')}?next={address}"


@pytest.mark.parametrize(("name", "args"), PAGES[1:], ids=[name for name, _ in PAGES[1:]])
def test_a_person_without_a_role_sees_nothing(
    people: People, summaries: Workload, name: str, args: list[object]
) -> None:
    response = people("stranger").get(reverse(f"console:{name}", args=args))
    assert response.status_code == 404
    assert "summaries" not in response.content.decode().replace("/summaries/", "")


def test_only_a_refused_change_says_that_nothing_was_changed(
    people: People, production: Environment, summaries: Workload
) -> None:
    client, address = people("tom", "viewer"), reverse("console:pin", args=["summaries", "production"])
    read, written = client.get(address), client.post(address, {"model_alias": "small", "reason": "x"})
    assert read.status_code == written.status_code == 403
    assert b"Nothing was changed" not in read.content
    assert b"Nothing was changed" in written.content


def test_a_person_without_a_role_is_told_what_to_do(people: People) -> None:
    assert b"You have no role yet" in people("stranger").get(reverse("console:index")).content


@pytest.mark.django_db
def test_a_person_need_not_be_staff() -> None:
    User.objects.create_user("maria", password="the right one")
    client = Client()
    form = {"username": "maria", "password": "the right one", "next": reverse("console:audit")}
    response = client.post(reverse("console:login"), form)
    assert response.headers["Location"] == reverse("console:audit")
    assert client.get(reverse("console:index")).status_code == 200


@pytest.mark.django_db
def test_a_wrong_password_is_reported() -> None:
    User.objects.create_user("maria", password="the right one")
    response = Client().post(reverse("console:login"), {"username": "maria", "password": "another"})
    assert response.status_code == 200
    assert b"The name or the password is wrong" in response.content


@pytest.mark.django_db
def test_a_polling_fragment_of_an_ended_session_reloads_the_page() -> None:
    response = Client().get(reverse("console:fleet"), headers={"HX-Request": "true"})
    assert response.headers["HX-Refresh"] == "true"


def test_a_form_without_its_csrf_token_is_refused(people: People, summaries: Workload) -> None:
    people("tom", "operator")
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.get(username="tom"))
    form = {"model_alias": "large", "reason": "incident"}
    assert client.post(reverse("console:pin", args=["summaries", "production"]), form).status_code == 403
    assert not summaries.assignments.get().pin_model


def test_an_unsupported_method_is_refused(people: People, production: Environment) -> None:
    assert people("tom", "viewer").post(reverse("console:workloads")).status_code == 405


def test_rollouts_of_other_environments_are_hidden(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = proposed(summaries, production)
    client = people("sam", "admin", environment="staging")
    assert client.get(reverse("console:rollout", args=[rollout.pk])).status_code == 404
    assert str(rollout.pk) not in client.get(reverse("console:rollouts")).content.decode()


def test_browsers_cache_no_page(people: People, production: Environment) -> None:
    response = people("tom", "viewer").get(reverse("console:fleet"))
    assert response.headers["Cache-Control"] == "no-store"
