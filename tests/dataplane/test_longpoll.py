"""Prefer: wait=N: the poll is held until something is newer or the time is over."""

import time

import pytest
from django.test import override_settings

from controlplane.access import actions as keys
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Environment
from tests.support.plane import PATIENCE_S, Plane, Served, key_row

SNAPSHOT = "/router/v1/snapshot"


def _tag(plane: Plane, served: Served) -> str:
    return plane.snapshot(served.key).headers["etag"]


def _held(plane: Plane) -> int:
    return sum(plane.gateway.snapshots.held.values())


def test_it_answers_at_once_when_there_is_something_newer(plane: Plane, served: Served) -> None:
    began = time.monotonic()
    assert plane.snapshot(served.key, prefer="wait=30").status == 200
    assert plane.snapshot(served.key, if_none_match='"old"', prefer="wait=30").status == 200
    assert time.monotonic() - began < 25


def test_it_holds_until_the_time_is_over(plane: Plane, served: Served) -> None:
    began = time.monotonic()
    answer = plane.snapshot(served.key, if_none_match=_tag(plane, served), prefer="respond-async, wait=1")
    assert (answer.status, answer.headers["preference-applied"]) == (304, "wait=1")
    assert time.monotonic() - began >= 1


def test_it_caps_the_wait(plane: Plane, served: Served) -> None:
    poll = plane.begin(SNAPSHOT, served.key, if_none_match=_tag(plane, served), prefer="wait=9999")
    plane.until(lambda: _held(plane) == 1)
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    assert poll.result(PATIENCE_S).headers["preference-applied"] == "wait=30"


def test_it_wakes_every_waiter_with_the_change(plane: Plane, served: Served) -> None:
    tag = _tag(plane, served)
    polls = [
        plane.begin(f"{SNAPSHOT}?since=1", served.key, if_none_match=tag, prefer="wait=30")
        for _ in range(100)
    ]
    plane.until(lambda: _held(plane) == 100)
    actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
    answers = [poll.result(PATIENCE_S) for poll in polls]
    assert {answer.status for answer in answers} == {200}
    assert {answer.json()["revision"] for answer in answers} == {2}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert _held(plane) == 0


def test_it_wakes_for_a_change_without_a_notice(plane: Plane, served: Served) -> None:
    poll = plane.begin(SNAPSHOT, served.key, if_none_match=_tag(plane, served), prefer="wait=30")
    plane.until(lambda: _held(plane) == 1)
    # As if another process had committed it and the notice was lost.
    Environment.objects.filter(pk=served.environment.pk).update(revision=2)
    assert poll.result(PATIENCE_S).json()["revision"] == 2


def test_it_answers_401_if_the_key_is_revoked_meanwhile(plane: Plane, served: Served) -> None:
    poll = plane.begin(SNAPSHOT, served.key, if_none_match=_tag(plane, served), prefer="wait=30")
    plane.until(lambda: _held(plane) == 1)
    keys.revoke_key(key_row(served.key).key_id, actor=SYSTEM, reason="leaked")
    plane.until(lambda: plane.snapshot(served.key).status == 401)
    actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
    answer = poll.result(PATIENCE_S)
    assert (answer.status, answer.code) == (401, "key_revoked")


@override_settings(MAX_WAITERS_PER_KEY=2)
def test_it_limits_the_waiters_of_a_key(plane: Plane, served: Served) -> None:
    tag = _tag(plane, served)
    polls = [plane.begin(SNAPSHOT, served.key, if_none_match=tag, prefer="wait=30") for _ in range(2)]
    plane.until(lambda: _held(plane) == 2)
    refused = plane.snapshot(served.key, if_none_match=tag, prefer="wait=30")
    assert (refused.status, refused.code) == (503, "unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    assert {poll.result(PATIENCE_S).status for poll in polls} == {304}


def test_it_releases_a_router_that_hung_up(plane: Plane, served: Served) -> None:
    poll = plane.begin(SNAPSHOT, served.key, if_none_match=_tag(plane, served), prefer="wait=30")
    plane.until(lambda: _held(plane) == 1)
    poll.hang_up()
    plane.until(lambda: _held(plane) == 0)


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "handling=strict", "await=5", ""])
def test_it_does_not_hold_without_a_wait(plane: Plane, served: Served, prefer: str) -> None:
    answer = plane.snapshot(served.key, if_none_match=_tag(plane, served), prefer=prefer)
    assert (answer.status, answer.headers.get("preference-applied")) == (304, None)
