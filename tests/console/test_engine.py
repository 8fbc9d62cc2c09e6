"""The home page and a rollout's page show whether the engine is alive, with instructions if it is not."""

import re
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from controlplane.core.models import Heartbeat
from controlplane.core.schedule import ENGINE
from policies_app.models import Environment, Workload
from tests.support.pages import text
from tests.support.people import People, running

DEAD = 'class="pm-alert pm-note pm-bad" role="alert"'
HOME, LIVE = "/console/", {"HX-Request": "true"}


def looked(seconds_ago: float) -> None:
    at = timezone.now() - timedelta(seconds=seconds_ago)
    Heartbeat.objects.update_or_create(job=ENGINE, defaults={"at": at})


@pytest.mark.parametrize("headers", [{}, LIVE])
@pytest.mark.parametrize(
    ("seconds_ago", "dead"),
    [(3.5, False), (10, False), (21, True), (3600, True), (-1, False), (-600, True)],
)
def test_it_shows_when_the_engine_last_ran(
    people: People, headers: dict[str, str], seconds_ago: float, dead: bool
) -> None:
    looked(seconds_ago)
    page = text(people("tom", "viewer").get(HOME, headers=headers))
    assert (DEAD in page) is dead
    assert ("You can still pause, roll back and pin by hand" in page) is dead
    if seconds_ago >= 3.5:
        assert "The engine last ran" in page


def test_it_counts_the_seconds(people: People) -> None:
    looked(3.5)
    page = text(people("tom", "viewer").get(HOME))  # a busy machine takes a second or two
    assert re.search(r"The engine last ran <time [^>]*>[3-9]\u202fs ago</time>", page)


def test_the_refreshed_page_turns_red(people: People) -> None:
    looked(1)
    tom = people("tom", "viewer")
    tag = tom.get(HOME, headers=LIVE).headers["ETag"]
    assert tom.get(HOME, headers={**LIVE, "If-None-Match": tag}).status_code == 304
    looked(21)
    again = tom.get(HOME, headers={**LIVE, "If-None-Match": tag})
    assert (again.status_code, DEAD in text(again)) == (200, True)


def test_an_engine_that_never_ran_is_reported(people: People) -> None:
    page = text(people("tom", "viewer").get(HOME))
    assert DEAD in page
    assert "has not run yet" in page
    assert "pointsman-worker pointsman-beat" in page


def test_a_rollout_shows_it_until_it_has_ended(
    people: People, summaries: Workload, production: Environment
) -> None:
    rollout = running(summaries, production)
    page = reverse("console:rollout", args=[rollout.pk])
    tom = people("tom", "viewer")
    assert DEAD in text(tom.get(page))
    looked(1)
    assert DEAD not in text(tom.get(page, headers=LIVE))
    type(rollout).objects.filter(pk=rollout.pk).update(state="aborted")
    assert "The engine last ran" not in text(tom.get(page))
