"""The audit list, its filters, and the page of an entry."""

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from controlplane.access.actions.people import end_sessions
from controlplane.audit import pages
from controlplane.audit.models import Entry, Head
from controlplane.core.actors import SYSTEM
from controlplane.notifications.actions import add_receiver, review
from controlplane.notifications.models import BreakGlass
from policies_app import actions
from policies_app.four_eyes.actions import request_four_eyes_off
from policies_app.models import Environment, Workload
from tests.support import builders
from tests.support.evidence_builders import ledger
from tests.support.pages import text
from tests.support.people import People, actor_of, running

LIST = "/console/audit/"


def listed(response: Any) -> set[str]:
    return {entry.action for entry, *_ in response.context["listed"]}


@pytest.fixture
def history(summaries: Workload, production: Environment) -> None:
    actions.pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    actions.unpin(summaries.assignments.get(), actor=SYSTEM, reason="over")
    running(summaries, production)


@pytest.mark.usefixtures("history")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"action": "assignment.pin"}, {"assignment.pin"}),
        ({"action": "rollout."}, {"rollout.propose", "rollout.approve", "rollout.start"}),
        ({"actor": "EVA"}, {"rollout.approve"}),
        ({"target": "production/summaries", "action": "assignment.u"}, {"assignment.unpin"}),
        ({"outcome": "refused"}, set()),
        ({"until": "2020-01-01"}, set()),
        (
            {"action": "rollout.start", "since": f"{timezone.now() - timedelta(days=1):%Y-%m-%d}"},
            {"rollout.start"},
        ),
    ],
)
def test_it_filters(people: People, query: dict[str, str], found: set[str]) -> None:
    assert listed(people("tom", "viewer").get(LIST, query)) == found


@pytest.mark.usefixtures("history")
def test_it_says_when_nothing_matches(people: People) -> None:
    assert "No entry matches" in text(people("tom", "viewer").get(LIST, {"actor": "nobody"}))


@pytest.mark.usefixtures("history")
def test_an_invalid_date_is_named(people: People) -> None:
    response = people("tom", "viewer").get(LIST, {"since": "yesterday"})
    assert response.status_code == 200
    assert "Enter a valid date" in text(response)
    assert "The filter is not valid" in text(response)
    assert not listed(response), "an invalid filter once listed the whole log"
    assert (
        people("tom", "viewer").get(reverse("console:audit_export", args=["csv"]), {"since": "x"}).status_code
        == 422
    )


def test_dates_are_compared_as_moments_so_that_an_index_can_find_them() -> None:
    """A comparison of each entry's date reads the whole log."""
    asked = str(
        pages.FilterForm({"since": "2026-01-02", "until": "9999-12-31"}).narrow(Entry.objects.all()).query
    )
    assert "2026-01-02 00:00:00" in asked and "9999-12-31 23:59:59.999999" in asked
    assert "date(" not in asked and "::date" not in asked


def test_it_hides_entries_of_other_environments(people: People, summaries: Workload) -> None:
    builders.environment("staging")
    response = people("sam", "viewer", environment="staging").get(LIST)
    assert "assignment.break_glass" not in listed(response)
    assert "version.add" in listed(response)
    hidden = Entry.objects.get(action="assignment.break_glass")
    assert people("sam").get(reverse("console:entry", args=[hidden.seq])).status_code == 404


def test_it_is_paged_with_few_queries(
    people: People, production: Environment, django_assert_max_num_queries: Any
) -> None:
    for number in range(60):
        actions.edit_environment(production, actor=SYSTEM, description=f"edit {number}")
    client = people("tom", "viewer")
    with django_assert_max_num_queries(20):
        first = text(client.get(LIST, {"action": "environment.edit"}))
    assert "1–50 of 60" in first
    assert "?action=environment.edit&amp;page=2" in first
    assert "51–60 of 60" in text(client.get(LIST, {"action": "environment.edit", "page": "2"}))
    assert client.get(LIST, {"page": "x"}).status_code == 200


@pytest.mark.parametrize(("newest", "each"), [(2, 200), (2_000, 1)])
def test_suggestions_come_from_the_newest_entries_and_it_says_so(
    people: People, monkeypatch: pytest.MonkeyPatch, newest: int, each: int
) -> None:
    for name in ("alpha", "beta", "gamma"):
        builders.environment(name)
    client = people("tom", "viewer")
    assert "Names are suggested from" not in text(client.get(LIST))
    monkeypatch.setattr(pages, "_OF_THE_NEWEST", newest)
    monkeypatch.setattr(pages, "_MOST_OPTIONS", each)
    page = text(client.get(LIST))
    assert f"from the newest {newest:,} entries, at most {each} of each kind" in page
    assert '<option value="gamma">' in page and '<option value="alpha">' not in page


def test_an_entry_shows_before_and_after(people: People, summaries: Workload) -> None:
    actions.pin(summaries.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    entry = Entry.objects.get(action="assignment.pin")
    response = people("tom", "viewer").get(reverse("console:entry", args=[entry.seq]))
    change = next(c for c in response.context["differences"] if c["path"] == "pin")
    assert (change["kind"], change["before"], change["after"]) == ("changed", "", "large")
    page = text(response)
    assert entry.hash in page and entry.prev_hash in page
    assert "incident 231" in page
    assert reverse("console:workload", args=["summaries"]) in page


def test_a_refusal_says_that_nothing_changed(people: People, summaries: Workload) -> None:
    form = {"version": summaries.versions.get(number=2).pk, "reason": "again"}
    people("tom", "operator").post("/console/workloads/summaries/production/serve/", form)
    entry = Entry.objects.get(outcome="refused")
    page = text(people("tom").get(reverse("console:entry", args=[entry.seq])))
    assert "nothing changed" in page
    assert "already_exists" in page


@pytest.mark.usefixtures("history")
def test_every_entry_has_a_page(people: People) -> None:
    client = people("tom", "admin")
    for entry in Entry.objects.all():
        assert client.get(reverse("console:entry", args=[entry.seq])).status_code == 200


def test_an_unknown_entry_is_not_found(people: People, production: Environment) -> None:
    assert people("tom", "viewer").get(reverse("console:entry", args=[999])).status_code == 404


@pytest.mark.usefixtures("history")
def test_entries_are_sentences_with_names_instead_of_ids(people: People) -> None:
    page = text(people("tom", "viewer").get(LIST))
    assert "eva approved v1 → v2 of summaries in production" in page
    assert "pinned summaries in production" in page
    entry = Entry.objects.get(action="rollout.start")
    assert "started v1 → v2 of summaries in production</h1>" in text(
        people("tom", "viewer").get(reverse("console:entry", args=[entry.seq]))
    )


@pytest.mark.usefixtures("history")
def test_the_filter_suggests_existing_values(people: People) -> None:
    page = text(people("tom", "viewer").get(LIST))
    assert '<option value="eva">' in page and '<option value="rollout.roll_back">rolled back' in page
    assert '<option value="production">' in page
    assert listed(people("tom", "viewer").get(LIST, {"environment": "nowhere"})) == set()


def test_evidence_is_shown_as_a_table_of_guardrails(
    people: People, summaries: Workload, production: Environment
) -> None:
    from rollout_app.actions import roll_back_rollout

    judged = ledger(looks=3, failure=0.2).judge(0).as_dict()
    roll_back_rollout(running(summaries, production), actor=SYSTEM, reason="worse", evidence=judged)
    entry = Entry.objects.get(action="rollout.roll_back")
    page = text(people("tom", "viewer").get(reverse("console:entry", args=[entry.seq])))
    assert "<td>Failure</td>" in page and ">fail<" in page
    assert "The complete evidence, as recorded" in page


def test_receivers_and_changes_are_shown_by_name(people: People, production: Environment) -> None:
    add_receiver("ops", "webhook", "https://hooks.example/pointsman", actor=SYSTEM)
    request_four_eyes_off(production, actor=actor_of("maria"), reason="the holidays")
    page = text(people("tom", "viewer").get(LIST))
    assert "Pointsman added receiver ops" in page
    assert "maria requested the end of four eyes in production" in page


def test_empty_fields_are_omitted(people: People) -> None:
    builders.catalogue()
    entry = Entry.objects.filter(action="model.add").latest("seq")
    page = text(people("tom", "viewer").get(reverse("console:entry", args=[entry.seq])))
    assert "context_window" in page and "batch_input_nusd_per_mtok" not in page
    assert "fields without a value are omitted here" in page


def test_a_reviewed_use_of_break_glass_is_shown_by_name(
    people: People, summaries: Workload, production: Environment
) -> None:
    opened = BreakGlass.objects.get(action="assignment.break_glass")
    reviewer = people("eva", "approver")
    review(opened, actor=actor_of("eva"), reason="seen")
    page = text(reviewer.get(LIST))
    assert "summaries, a first version served without approval by Pointsman in production" in page
    assert f"break glass {opened.pk}" not in page


def test_the_page_of_a_person_links_to_their_entries_only(people: People) -> None:
    """A person's key is part of other ids: 1 of 10, of 21 and of most rollouts'."""
    client = people("ada", "admin")
    for key in (50_001, 150_001):
        user = User.objects.create(pk=key, username=f"person-{key}")
        end_sessions(user, actor=SYSTEM, reason="a lost laptop")
    page = text(client.get(reverse("console:person", args=[50_001])))
    (link,) = re.findall(r'href="([^"]*)">Audit</a>', page.partition("<h2>Changes")[2])
    assert {entry.target_id for entry, *_ in client.get(link).context["listed"]} == {"50001"}


@pytest.mark.usefixtures("history")
def test_an_entry_links_to_the_entries_about_the_same_target(people: People, summaries: Workload) -> None:
    client = people("tom", "viewer")
    builders.workload("summaries-2")
    entry = Entry.objects.get(action="workload.register", target_id="summaries")
    page = text(client.get(reverse("console:entry", args=[entry.seq])))
    (link,) = re.findall(r'href="([^"]*target=[^"]*)"', page)
    found = [entry for entry, *_ in client.get(link).context["listed"]]
    assert {entry.workload for entry in found} == {"summaries"}
    assert {"workload.register", "assignment.pin", "rollout.start"} <= {entry.action for entry in found}


@pytest.mark.parametrize("seq", [-1, -(2**63)])
def test_a_forged_number_breaks_no_page(people: People, seq: int) -> None:
    """A row with a negative number made the list, and the page that reports it, a 500."""
    ann = User.objects.create_user("ann")
    change = {"seq": seq, "prev_hash": "a" * 64, "hash": "b" * 64, "body": b"{}", "at": timezone.now()}
    target = {"target_kind": "user", "target_id": str(ann.pk)}
    Entry.objects.create(**change, **target, action="user.create", actor_label="x", outcome="done")
    Head.objects.update_or_create(pk=1, defaults={"chain": "c", "seq": seq, "hash": "c" * 64})
    browser = people("vera", "viewer", "admin")
    verified = browser.post("/console/audit/verify/")
    assert verified.status_code == 200 and f"entry {seq}" in text(verified)
    assert f"/console/audit/{seq}/" in verified.content.decode()
    for page in (LIST, "/console/", f"/console/people/{ann.pk}/", "/console/audit/verify/"):
        assert browser.get(page).status_code == 200, page
