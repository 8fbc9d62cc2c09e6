"""Lists, pages and the audit log reveal nothing of environments that somebody may not see."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client

from controlplane.access import actions as access
from controlplane.access import selectors
from controlplane.access.models import Membership
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.notifications import actions as notifications
from policies_app.models import Workload
from tests.support import builders
from tests.support.callers import Caller
from tests.support.pages import text
from tests.support.people import logged_in

pytestmark = pytest.mark.django_db
WHY = {"reason": "x"}


@pytest.fixture
def summaries() -> Workload:
    """Served in staging and in production."""
    return builders.served_in_two_environments()


def person(name: str, *roles: str, environment: str = "staging") -> User:
    user, _ = User.objects.get_or_create(username=name)
    for role in roles:
        Membership.objects.get_or_create(user=user, environment=environment, role=role)
    return user


def caller(name: str, *roles: str, environment: str = "staging") -> Caller:
    return Caller(*roles, user=person(name, *roles, environment=environment), environment=environment)


# --- the audit log ----------------------------------------------------------------------------------------


@pytest.fixture
def _told(settings: Any, summaries: Workload) -> None:
    """Entries without an environment: an invitation to production, a receiver, a sign-in, a team."""
    settings.WEBHOOK_ALLOWED = ["10.0.0.1"]
    olga, root = [{"role": "approver", "environment": "production"}], Actor.of_user(person("root"))
    access.invite("Olga", actor=SYSTEM, reason="x", email="olga@example.org", roles=olga)
    notifications.add_receiver("Chat", "webhook", "https://10.0.0.1/hooks/sesame", actor=root)
    access.create_person("eva", actor=SYSTEM, reason="from outside")
    access.create_team("quiet", actor=root)


def logs(name: str) -> Iterator[str]:
    """Yield the log of this person: by API, as exports, and as a page."""
    call, client = Caller("viewer", user=User.objects.get(username=name), environment="staging"), Client()
    client.force_login(User.objects.get(username=name))
    yield json.dumps(call("GET", "audit?limit=200").json())
    for form in ("jsonl", "csv"):
        yield b"".join(call("GET", f"audit/export?format={form}").streaming_content).decode()
        yield b"".join(client.get(f"/console/audit/export.{form}").streaming_content).decode()  # type: ignore[attr-defined]
    yield text(client.get("/console/audit/"))


@pytest.mark.usefixtures("_told")
def test_the_log_keeps_people_and_receivers_from_those_who_may_not_list_them() -> None:
    person("vera", "viewer")
    for shown in logs("vera"):
        assert "quiet" in shown
        assert not [
            secret for secret in ("olga@", "Olga", "sesame", "Chat", "from outside") if secret in shown
        ]
    hidden = Entry.objects.filter(action__in=["invitation.create", "receiver.add", "user.create"])
    call = caller("vera", "viewer")
    assert {call("GET", f"audit/{entry.seq}").status_code for entry in hidden} == {404}


@pytest.mark.usefixtures("_told")
@pytest.mark.parametrize(
    ("role", "environment", "seen"),
    [
        ("viewer", "", {"invitation.create", "receiver.add", "user.create"}),
        ("admin", "staging", {"user.create"}),
        ("admin", "", {"invitation.create", "receiver.add", "user.create"}),
    ],
)
def test_the_log_shows_them_to_those_who_may(role: str, environment: str, seen: set[str]) -> None:
    call = caller("ann", role, environment=environment)
    found = {item["action"] for item in call("GET", "audit?limit=200").json()["items"]}
    assert found & {"invitation.create", "receiver.add", "user.create"} == seen


@pytest.mark.usefixtures("_told")
def test_the_log_shows_what_one_did_and_what_was_done_to_one() -> None:
    vera = person("vera", "viewer")
    access.end_sessions(vera, actor=SYSTEM, reason="x")
    access.grant_role(person("eve"), "viewer", "", actor=SYSTEM)
    call = caller("vera", "viewer")
    found = [item["action"] for item in call("GET", "audit?limit=200").json()["items"]]
    assert "user.end_sessions" in found
    assert "membership.grant" in found, "a role in every environment is one in staging"


def test_a_refusal_belongs_to_the_environment_whose_role_is_missing(summaries: Workload) -> None:
    """Also where the address does not name it: an auditor of production finds it, one of staging does not."""
    client, tom = logged_in("tom", "viewer", environment="production"), person("tom")
    client.get("/console/")
    call = Caller("viewer", user=tom, environment="production")
    body = {
        "environment": "production",
        "workload": "summaries",
        "candidate": 1,
        "stages": [{"mode": "full"}],
    }
    assert call("POST", "rollouts", body | WHY).status_code == 403
    assert client.post("/console/environments/production/freeze/", WHY).status_code == 403
    refused = Entry.objects.filter(outcome="refused").values_list("environment", flat=True)
    assert list(refused) == ["production", "production"]


# --- people -----------------------------------------------------------------------------------------------


def test_the_page_of_a_person_shows_no_keys_and_changes_of_other_environments(summaries: Workload) -> None:
    eva = person("eva", "viewer", environment="production")
    access.issue_key("admin", "production", "a secret project", actor=SYSTEM, user=eva, scopes=["viewer"])
    access.issue_key("admin", "staging", "in the open", actor=SYSTEM, user=eva, scopes=["viewer"])
    access.grant_role(eva, "approver", "production", actor=SYSTEM, reason="the merger")
    access.grant_role(eva, "operator", "staging", actor=SYSTEM, reason="on call")
    shown = text(logged_in("ann", "admin", environment="staging").get(f"/console/people/{eva.pk}/"))
    assert "in the open" in shown and "on call" in shown
    assert "a secret project" not in shown and "the merger" not in shown
    shown = text(logged_in("root", "admin").get(f"/console/people/{eva.pk}/"))
    assert all(each in shown for each in ("in the open", "on call", "a secret project", "the merger"))


def test_a_viewer_of_every_environment_administers_those_where_they_are_admin(summaries: Workload) -> None:
    ann = person("ann", "admin")
    person("ann", "viewer", environment="")
    assert selectors.environments_administered_by(ann) == {"staging"}
    assert selectors.environments_administered_by(Actor.of_user(ann)) == {"staging"}
    assert selectors.environments_administered_by(person("vera", "viewer", environment="")) == set()
    router, _ = access.issue_key("router", "staging", "r", actor=SYSTEM)
    call = Caller("admin", "viewer", user=ann)
    assert router.key_id in {item["key_id"] for item in call("GET", "keys").json()["items"]}
    limited = Caller("admin", "viewer", user=ann, workloads=["summaries"])
    assert selectors.environments_administered_by(Actor("key", limited.key.key_id, "", str(ann.pk))) == set()


# --- proposals --------------------------------------------------------------------------------------------


def test_the_form_of_a_proposal_does_not_tell_an_environment_from_a_guess(summaries: Workload) -> None:
    client = logged_in("ed", "editor", environment="staging", team=summaries.owner)
    builders.version(summaries)
    address = "/console/rollouts/propose/?workload=summaries"
    form = WHY | {"candidate": 2, "plan": 1}
    answers = [client.post(address, form | {"environment": name}) for name in ("production", "nowhere")]
    assert [answer.status_code for answer in answers] == [404, 404]
    with time_machine.travel(clock.now(), tick=False):  # a page contains the second in which it was made
        pages = [
            re.sub(r'value="\w{64}"', "", text(client.get(f"{address}&environment={name}")))
            for name in ("production", "nowhere")
        ]
    assert pages[0].replace("environment=production", "environment=nowhere") == pages[1]
