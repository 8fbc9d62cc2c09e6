"""The page of an ended rollout shows the present state: reverted, superseded, pinned."""

from django.urls import reverse

from controlplane.core.actors import SYSTEM
from policies_app import actions as policies
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.pages import text
from tests.support.people import People, actor_of, running


def shown(people: People, rollout: Rollout) -> str:
    page = text(people("tom", "viewer").get(reverse("console:rollout", args=[rollout.pk])))
    return " ".join(page.replace("\u202f", " ").split())


def completed(workload: Workload, environment: Environment) -> Rollout:
    rollout = actions.advance_rollout(running(workload, environment), actor=SYSTEM, reason="on")
    return actions.complete_rollout(rollout, actor=SYSTEM, reason="done")


def test_a_completed_rollout_shows_what_is_served(
    people: People, summaries: Workload, production: Environment
) -> None:
    assert "Version 2 is the baseline now." in shown(people, completed(summaries, production))


def test_a_reverted_rollout_does_not_call_its_version_the_baseline(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = completed(summaries, production)
    back = actions.revert_rollout(rollout, actor=actor_of("maria"), reason="worse at night")
    page = shown(people, rollout)
    assert "Version 2 is the baseline now" not in page
    assert "was reverted" in page and reverse("console:rollout", args=[back.pk]) in page


def test_a_superseded_rollout_names_the_version_that_is_served(
    people: People, summaries: Workload, production: Environment
) -> None:
    first = completed(summaries, production)
    builders.version(summaries, actor=actor_of("maria"))
    completed(summaries, production)
    page = shown(people, first)
    assert "It has been superseded: version 3 is served now." in page
    assert "is the baseline now" not in page


def test_a_pin_is_shown_on_the_page_of_a_rollout(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    assert "is pinned to" not in shown(people, rollout)
    assignment = summaries.assignments.get()
    policies.pin(assignment, model_alias="large", actor=SYSTEM, reason="the provider is down")
    page = shown(people, rollout)
    assert "summaries is pinned to" in page and "the provider is down" in page
