"""The look-ups of names that a report brings: what is remembered, and how many reports may wait for them."""

import threading
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from rollout_app import actions
from rollout_app.outcomes import ingest
from rollout_app.outcomes.lookups import KnownNames
from tests.support import places
from tests.support.plane import PATIENCE_S, Asked, Plane, Served, router_key, until
from tests.support.reports import batch, bucket

DOOR = "/router/v1/outcomes"


@pytest.mark.django_db(transaction=True)
def test_a_rollout_is_known_only_when_it_has_started() -> None:
    """A report on one that waited made this process remember its stages, and refuse those of its amendment."""
    rollout = places.approved()
    key = router_key(rollout.environment.name)
    fields = {"rollout": str(rollout.pk), "version": rollout.candidate.number, "arm": "candidate"}
    document = bucket(places.assignment(rollout), **fields, stage=0)
    with Plane() as plane:
        early = plane.post(DOOR, key, batch(document))
        assert (early.status, early.json()["problems"][0]["field"]) == (422, "rollout")
        last = {"mode": "percentage", "share_pcm": 80_000, "min_tasks": 50, "min_minutes": 0}
        plan = [*places.PLAN[:-1], last, places.PLAN[-1]]
        rollout = actions.amend_rollout(rollout, actor=places.ANNA, reason="one more stage", plan=plan)
        actions.start_rollout(places.approve(rollout), actor=places.BEN, reason="now")
        assert plane.post(DOOR, key, batch(document, document | {"stage": len(plan) - 1})).status == 202


class Blocked:
    """Look-ups that wait until they may go on, like those of a database that does not answer."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_go_on = threading.Event()

    def load(self, names: KnownNames, wanted: Any) -> None:
        self.begun += 1
        assert self.may_go_on.wait(PATIENCE_S)
        self._load(names, wanted)

    _load = staticmethod(KnownNames.load)


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Blocked]:
    blocked = Blocked()
    monkeypatch.setattr(KnownNames, "load", lambda *given: blocked.load(*given))
    yield blocked
    blocked.may_go_on.set()


def begun(plane: Plane, served: Served, key: str = "") -> Asked:
    """Report on a name that must be looked up."""
    body = msgspec.json.encode(batch(bucket(served.assignment, workload="unknown")))
    return plane.begin(DOOR, key or served.key, method="POST", body=body)


def test_it_limits_the_reports_that_wait(
    plane: Plane, served: Served, blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise memory would grow for as long as the database does not answer."""
    monkeypatch.setattr(ingest, "MOST_LOOKUPS", 2)
    waiting = [begun(plane, served) for _ in range(2)]
    until(lambda: plane.gateway.ingest._looking_up.held == 2)
    refused = begun(plane, served).result(PATIENCE_S)
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "unavailable", "5")
    blocked.may_go_on.set()
    assert [answer.result(PATIENCE_S).status for answer in waiting] == [422, 422]
    assert plane.gateway.ingest._looking_up.held == 0


def test_one_key_does_not_keep_others_from_waiting(
    plane: Plane, served: Served, blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "MOST_LOOKUPS", 8)
    monkeypatch.setattr(ingest, "FEW_LOOKUPS", 2)
    greedy = [begun(plane, served) for _ in range(9)]
    until(lambda: sum(asked.done() for asked in greedy) == 5)
    other = begun(plane, served, router_key(served.environment.name))
    until(lambda: plane.gateway.ingest._looking_up.held == 5)
    blocked.may_go_on.set()
    assert other.result(PATIENCE_S).status == 422
    assert sorted(asked.result(PATIENCE_S).status for asked in greedy) == [422] * 4 + [503] * 5


def test_a_report_does_not_wait_for_the_time_limits_of_all_before_it(
    plane: Plane, served: Served, blocked: Blocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "SHORT_S", 0.5)
    waiting = [begun(plane, served) for _ in range(3)]
    until(lambda: plane.gateway.ingest._looking_up.held == 3)
    threading.Event().wait(0.6)
    blocked.may_go_on.set()
    assert sorted(answer.result(PATIENCE_S).status for answer in waiting) == [422, 503, 503]
    assert blocked.begun == 1
