"""A router whose disk rejects what it applied: its If-None-Match lags behind, and its acks count instead."""

import time
from datetime import timedelta
from pathlib import Path

import pytest

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from pointsman import Pace
from pointsman import Router as Client
from policies_app import actions as assignments
from policies_app.fleet import readback
from policies_app.fleet.writer import flush
from policies_app.models import Environment, Router
from rollout_app import actions
from rollout_app.engine.states import State
from rollout_app.evaluation.reconcile import reconcile
from rollout_app.models import Rollout
from tests.support.places import BEN, proposed
from tests.support.plane import Plane, Served, Server, router_key, until

ACKS = "/router/v1/acks"


def _ack(plane: Plane, served: Served, revision: int, epoch: str = "") -> None:
    word = {"router": "r-1", "revision": revision, "state": "applied"} | ({"epoch": epoch} if epoch else {})
    assert plane.post(ACKS, served.key, word).status == 204


def _tag(served: Served, revision: int) -> str:
    return f'"{served.environment.epoch}.{revision}.0123456789abcdef"'


def _poll(plane: Plane, served: Served, tag: str = "") -> None:
    named = {"if_none_match": tag} if tag else {}
    plane.snapshot(served.key, pointsman_router="r-1", **named)


def _is_at(plane: Plane, served: Served, revision: int) -> bool:
    return readback.read_back(served.environment, revision).confirmed == 1


def _written(plane: Plane) -> None:
    """Wait until everything heard is stored, including what the writer's thread is just writing."""
    flushed_at = time.monotonic()
    flush(plane.gateway._fleet)
    until(lambda: plane.gateway._fleet_writer.age() < time.monotonic() - flushed_at)


def _moved(served: Served) -> None:
    """Move to revision 2."""
    assignments.pin(served.assignment, "large", actor=SYSTEM, reason="now")
    served.environment.refresh_from_db()


def test_an_older_tag_does_not_undo_an_ack(plane: Plane, served: Served) -> None:
    _moved(served)
    _poll(plane, served, _tag(served, 1))
    _ack(plane, served, 2)
    _poll(plane, served, _tag(served, 1))
    _written(plane)
    assert _is_at(plane, served, 2)
    _poll(plane, served, _tag(served, 1))
    _written(plane)
    assert _is_at(plane, served, 2)


def test_an_older_tag_heard_by_another_process_does_not_undo_an_ack(plane: Plane, served: Served) -> None:
    _moved(served)
    with Plane() as other:
        _ack(plane, served, 2)
        _written(plane)
        _poll(other, served, _tag(served, 1))
        _written(other)
        assert _is_at(plane, served, 2)


def test_a_missing_tag_does_not_undo_an_ack(plane: Plane, served: Served) -> None:
    _ack(plane, served, 1)
    _poll(plane, served)
    _written(plane)
    assert _is_at(plane, served, 1)


@pytest.mark.parametrize(("age_s", "stands"), [(89, True), (90, False), (91, False)])
def test_an_ack_counts_only_for_a_while(
    plane: Plane, served: Served, age_s: int, stands: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    _moved(served)
    _ack(plane, served, 2)
    _poll(plane, served, _tag(served, 1))
    _written(plane)
    row = Router.objects.get()
    assert row.acked_at is not None
    now = row.acked_at + timedelta(seconds=age_s)
    monkeypatch.setattr(clock, "now", lambda: now)
    assert _is_at(plane, served, 2) is stands
    assert readback.read_back(served.environment, 1).confirmed == 1


def test_the_ack_of_a_restarted_process_takes_over_at_once(plane: Plane, served: Served) -> None:
    _moved(served)
    _ack(plane, served, 2)
    _poll(plane, served, _tag(served, 1))
    _written(plane)
    _ack(plane, served, 1)
    _written(plane)
    assert not _is_at(plane, served, 2)


def test_a_late_ack_does_not_undo_a_newer_tag(plane: Plane, served: Served) -> None:
    _moved(served)
    _poll(plane, served, _tag(served, 2))
    _ack(plane, served, 1)
    _written(plane)
    assert _is_at(plane, served, 2)


def test_it_is_counted_in_the_epoch_that_it_acked_while_its_disk_holds_an_older_one(
    plane: Plane, served: Served
) -> None:
    _poll(plane, served, '"an-older-epoch.9.0123456789abcdef"')
    _ack(plane, served, 1, served.environment.epoch)
    _written(plane)
    assert _is_at(plane, served, 1)


def test_a_refusal_does_not_change_what_is_applied(plane: Plane, served: Served) -> None:
    _poll(plane, served, _tag(served, 1))
    _written(plane)
    word = {"router": "r-1", "state": "rejected", "workload": served.assignment.workload.name}
    plane.post(ACKS, served.key, {**word, "digest": "d", "error": "no"})
    _written(plane)
    assert _is_at(plane, served, 1)


@pytest.mark.usefixtures("transactional_db")
def test_a_rollback_with_a_full_disk_is_confirmed_by_the_readback(tmp_path: Path) -> None:
    rollout = _running()
    environment, name = rollout.environment, rollout.workload.name
    path = tmp_path / "store" / "snapshot"
    with (
        Server() as server,
        Client(
            server.url,
            router_key(environment.name),
            store=path,
            instance="r-1",
            pace=Pace(first_poll_within=0),
        ) as router,
    ):
        until(lambda: readback.read_back(environment, environment.revision).confirmed)
        stored = path.read_bytes()
        path.unlink()
        path.mkdir()  # a directory in its place: no file can be renamed onto it
        actions.roll_back_rollout(rollout, actor=BEN, reason="it hurts")
        environment.refresh_from_db()
        until(lambda: router.revision == environment.revision)
        assert router.decide(name).arm == "baseline"
        until(lambda: router.status()["store_errors"] > 0)
        until(lambda: reconcile(rollout.pk) == "confirm")
        rollout.refresh_from_db()
        assert rollout.state == State.ROLLED_BACK
        assert rollout.readback == {"confirmed": 1, "of": 1, "stragglers": [], "silent": [], "lost": []}
        row = Router.objects.get(instance="r-1")
        assert row.revision < environment.revision, "its tag is that of the stored snapshot"
        path.rmdir()
        path.write_bytes(stored)
        until(lambda: Router.objects.get(instance="r-1").revision == environment.revision)


def _running() -> Rollout:
    rollout = proposed(four_eyes=False, plan=[{"mode": "full"}])
    Environment.objects.update(poll_interval_ms=1_000)
    rollout.environment.refresh_from_db()
    return actions.start_rollout(rollout, actor=BEN, reason="now")
