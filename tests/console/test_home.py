"""The home page: what it shows, in the same few queries for any number of rollouts."""

from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from controlplane.access.change_requests import withdraw
from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from policies_app import actions as policies
from policies_app.four_eyes.actions import request_four_eyes_off
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, actor_of, approve, proposed, running

MANY = 21


def ready(environment: Environment, name: str) -> Rollout:
    workload = builders.workload(name)
    builders.served(environment, workload)
    builders.version(workload, actor=actor_of("maria"))
    return proposed(workload, environment)


def test_many_rollouts_need_no_more_queries(people: People, django_assert_max_num_queries: Any) -> None:
    staging = builders.environment("staging")
    for n in range(MANY):
        ready(staging, f"workload-{n}")
    client = people("tom", "operator")
    with django_assert_max_num_queries(40):
        page = text(client.get(reverse("console:index")))
    assert "20 or more rollouts are ready to start" in page
    assert "The newest 20 are shown" in page


def test_rollouts_that_need_another_approver_need_no_more_queries(people: People) -> None:
    staging = builders.environment("staging", four_eyes=True)
    client = people("eva", "approver")

    def queries(first: int, last: int) -> int:
        for n in range(first, last):
            workload = builders.workload(f"workload-{n}")
            builders.served(staging, workload)
            builders.version(workload)  # by nobody that is known, so two people must approve it
            approve(proposed(workload, staging), "eva")
        with CaptureQueriesContext(connection) as captured:
            page = text(client.get(reverse("console:index")))
        assert "Waiting for your approval" not in page
        return len(captured)

    assert queries(0, 2) == queries(2, 6)


def test_waiting_and_running_rollouts_do_not_displace_each_other(people: People, monkeypatch: Any) -> None:
    monkeypatch.setattr("rollout_app.console.needs._ASKED", 1)
    staging = builders.environment("staging")
    for name in ("alpha", "beta"):
        ready(staging, name)
    started = ready(staging, "gamma")
    actions.start_rollout(started, actor=SYSTEM, reason="now")
    page = text(people("tom", "operator").get(reverse("console:index")))
    assert "gamma: v1" in page and "beta: v1" in page


def test_refusals_of_several_rollouts_equal_those_of_each(
    production: Environment, summaries: Workload
) -> None:
    staging = builders.environment("staging")
    rollouts = [proposed(summaries, production), ready(staging, "ready"), ready(staging, "pinned")]
    policies.pin(rollouts[2].workload.assignments.get(), "large", actor=SYSTEM, reason="incident 231")
    rollouts.append(ready(staging, "twice"))
    rollouts.append(running(rollouts[-1].workload, staging))
    model = builders.catalogue()["openai/gpt-4o-mini"]
    policies.edit_model(model, actor=SYSTEM, reason="retired", enabled=False)
    now, known = clock.now(), actions.Surroundings(rollouts)
    for rollout in rollouts:
        alone = actions.refusals(rollout, now)
        assert {event: actions.refusal(rollout, event, now, known) for event in alone} == alone
        assert any(alone.values())


def test_a_sign_in_is_not_a_recent_change(people: People, production: Environment) -> None:
    log.record(actor=SYSTEM, action="session.begin", target=("user", "1"))
    page = text(people("vic", "viewer").get(reverse("console:index")))
    assert "registered environment production" in page and "signed in" not in page


def test_it_is_never_quiet_while_something_is_unusual(people: People, production: Environment) -> None:
    client, address = people("vic", "viewer"), reverse("console:index")
    assert "<h1>The engine is not running</h1>" in text(client.get(address))
    Heartbeat.objects.create(job=ENGINE, at=clock.now())
    assert "<h1>All quiet</h1>" in text(client.get(address))
    served = builders.served(production, builders.workload())
    policies.pin(served, "large", actor=SYSTEM, reason="incident 231")
    assert "<h1>1 workload is pinned</h1>" in text(client.get(address))


def test_the_first_rollout_is_a_step_for_an_admin_once_there_is_a_workload(people: People) -> None:
    client, address = people("ada", "admin"), reverse("console:index")
    # An admin has the role; the steps before it are missing.
    assert "Someone with the required role does this." not in text(client.get(address))
    builders.workload("tickets")
    assert "/console/rollouts/propose/?workload=tickets" in text(client.get(address))


def test_it_shows_the_persons_own_rollout_that_waits_for_an_approval(
    people: People, summaries: Workload, production: Environment
) -> None:
    Heartbeat.objects.create(job=ENGINE, at=clock.now())
    proposed(summaries, production)
    page = text(people("maria", "editor").get(reverse("console:index")))
    assert "1 of your rollouts waits for an approval" in page and "Yours" in page
    assert "awaiting approval" in page and "All quiet" not in page


def test_its_heading_tells_a_hold_from_a_missing_approval(
    people: People, summaries: Workload, production: Environment
) -> None:
    Heartbeat.objects.create(job=ENGINE, at=clock.now())
    rollout = approve(proposed(summaries, production))
    Rollout.objects.filter(pk=rollout.pk).update(hold_code="conflict", hold_sentence="A model is disabled.")
    page = text(people("maria", "editor").get(reverse("console:index")))
    assert "1 of your rollouts is on hold" in page and "waits for an approval" not in page


def test_home_lists_a_persons_own_change_that_waits_for_another(
    people: People, production: Environment
) -> None:
    Heartbeat.objects.create(job=ENGINE, at=clock.now())
    maria = people("maria", "admin")
    change = request_four_eyes_off(production, actor=actor_of("maria"), reason="a drill")
    page = text(maria.get("/console/"))
    assert "1 of your changes waits for an approval" in page
    assert f'href="/console/changes/{change.pk}/"' in page and "Switch four eyes off in production" in page
    assert "Waiting for approval by an approver in production who neither wrote nor requested it." in page
    assert "Your changes" not in text(people("tom", "approver").get("/console/"))
    withdraw(change, actor=actor_of("maria"), reason="not now")
    assert "Your changes" not in text(maria.get("/console/"))


def test_home_asks_the_database_as_often_with_many_own_changes(people: People) -> None:
    maria = people("maria", "admin")
    counts: list[int] = []
    for names in ("a",), ("b", "c", "d"):
        for name in names:
            place = builders.environment(f"place-{name}", four_eyes=True)
            request_four_eyes_off(place, actor=actor_of("maria"), reason="a drill")
        with CaptureQueriesContext(connection) as queries:
            assert text(maria.get("/console/")).count("Waiting for approval by") == len(counts) * 3 + 1
        counts.append(len(queries))
    assert counts[1] <= counts[0], counts
