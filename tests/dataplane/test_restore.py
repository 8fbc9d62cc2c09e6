"""A database restored from a backup: detected, withheld from routers, and repaired by `post_restore`."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.core.management import CommandError, call_command
from django.test import Client

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment, Environment, Revision, Router, new_epoch
from policies_app.snapshots import high_water
from policies_app.snapshots.cache import SnapshotHeader, read_headers
from policies_app.snapshots.high_water import HighWater
from rollout_app import actions as rollout_actions
from rollout_app.evaluation.reconcile import evaluate
from rollout_app.models import Rollout
from tests.support import append_only, builders, places
from tests.support.plane import Plane, Served, until
from tests.support.reports import batch, bucket


@pytest.fixture
def backup(served: Served) -> Iterator[Callable[[], None]]:
    """Return a function that undoes the environment's revisions after the first, like a restore."""
    assignment = Assignment.objects.get(pk=served.assignment.pk)

    def restore() -> None:
        with append_only.lifted():
            Revision.objects.filter(environment=served.environment, number__gt=1).delete()
        Environment.objects.filter(pk=served.environment.pk).update(revision=1)
        assignment.save()

    yield restore


def pinned(served: Served) -> None:
    actions.pin(Assignment.objects.get(pk=served.assignment.pk), "large", actor=SYSTEM, reason="outage")


def is_marked(served: Served, revision: int) -> bool:
    marks = [each.get(served.environment.name) or () for each in high_water._content().values()]
    return [served.environment.epoch, revision] in [list(mark[:2]) for mark in marks]


def test_it_withholds_a_restored_environment_until_post_restore(
    served: Served, backup: Callable[[], None]
) -> None:
    """F18: after restoring yesterday's copy, serving and pinning answered 200, but routers refused the lower
    revision for ever."""
    with Plane() as plane:
        pinned(served)
        until(lambda: plane.snapshot(served.key).json()["revision"] == 2)
        until(lambda: is_marked(served, 2))
    backup()
    with Plane() as plane:
        polled = plane.snapshot(served.key)
        assert (polled.status, polled.code) == (503, "restored")
        flags = plane.post("/ofrep/v1/evaluate/flags", served.key, {})
        assert (flags.status, flags.code) == (
            503,
            "restored",
        )  # no flags at all would replace those they have
        reported = plane.post("/router/v1/outcomes", served.key, batch(bucket(served.assignment)))
        assert reported.status == 503  # the router keeps it; it is not refused for good

        pinned(served)  # an emergency, before the repair
        call_command("post_restore", reason="yesterday's backup")
        until(lambda: plane.snapshot(served.key).status == 200)
        snapshot = plane.snapshot(served.key).json()
    assert snapshot["epoch"] > served.environment.epoch
    assert (snapshot["revision"], snapshot["full"]) == (2, True)
    assert snapshot["workloads"][served.assignment.workload.name]["pin"]["model"] == "large"
    entry = Entry.objects.get(action="environment.new_epoch")
    assert entry.reason == "yesterday's backup"


def test_it_detects_a_restore_under_a_running_gateway(
    plane: Plane, served: Served, backup: Callable[[], None]
) -> None:
    pinned(served)
    until(lambda: plane.snapshot(served.key).json()["revision"] == 2)
    waiting = plane.begin(
        "/router/v1/snapshot", served.key, prefer="wait=30",
        if_none_match=plane.snapshot(served.key).headers["etag"],
    )  # fmt: skip
    backup()
    assert waiting.result(30).code == "restored"


def test_changes_after_a_restore_do_not_end_it(
    plane: Plane, served: Served, backup: Callable[[], None]
) -> None:
    """The pin had the number of the revision that the router already had. It got 304, and counted as confirmed."""
    pinned(served)
    until(lambda: plane.snapshot(served.key).json()["revision"] == 2)
    etag = plane.snapshot(served.key).headers["etag"]
    name, watcher = served.environment.name, plane.gateway._watcher
    until(lambda: watcher._high_water._marks[name].revision == 2)
    backup()
    until(lambda: plane.snapshot(served.key).status == 503)
    pinned(served)
    assert Environment.objects.get(pk=served.environment.pk).revision == 2
    until(lambda: watcher._headers[name].revision == 2)  # the gateway has seen it
    polled = plane.snapshot(served.key, query="?since=2", if_none_match=etag)
    assert (polled.status, polled.code) == (503, "restored")
    call_command("post_restore", reason="yesterday's backup")
    until(lambda: plane.snapshot(served.key, query="?since=2", if_none_match=etag).status == 200)


@pytest.mark.django_db
def test_a_new_epoch_is_newer_although_the_clock_is_behind(settings: Any) -> None:
    """Gateways compare epochs: with an older one, they would withhold the environment for ever."""
    environment = builders.environment()
    with time_machine.travel(datetime.now(UTC) - timedelta(days=1)):
        call_command("post_restore", reason="backup")
    assert Environment.objects.get(pk=environment.pk).epoch > environment.epoch


@pytest.mark.django_db
def test_it_pauses_rollouts_that_the_backup_brought_back(capsys: Any) -> None:
    rollout = places.started()
    call_command("post_restore", reason="backup", environment=[rollout.environment.name])
    assert Rollout.objects.get(pk=rollout.pk).state == "paused"
    assert f"paused {rollout.workload.name} v1 → v2" in capsys.readouterr().out


@pytest.mark.django_db
def test_a_rollout_that_the_engine_moves_meanwhile_is_paused_too(monkeypatch: Any) -> None:
    """The engine advanced it between the list and the pause, and it went on without a word."""
    rollout, pause = places.started(), rollout_actions.pause_rollout

    def advanced_first(seen: Rollout, **named: Any) -> Rollout:
        monkeypatch.setattr(rollout_actions, "pause_rollout", pause)
        rollout_actions.advance_rollout(rollout.pk, actor=SYSTEM, reason="the evidence is in")
        return pause(seen, **named)

    monkeypatch.setattr(rollout_actions, "pause_rollout", advanced_first)
    call_command("post_restore", reason="backup")
    found = Rollout.objects.get(pk=rollout.pk)
    assert (found.state, found.stage) == ("paused", 1)


@pytest.mark.django_db
def test_nothing_that_was_scheduled_starts_after_a_restore(capsys: Any, settings: Any) -> None:
    """Its time had passed, so it started with the first sweep, although it may have been cancelled since."""
    settings.CLOCK = "process"
    assignment = builders.served(builders.environment(), builders.workload())
    candidate = builders.version(assignment.workload)
    rollout = rollout_actions.propose_rollout(
        assignment.environment, assignment.workload, candidate, plan=[{"mode": "full"}], reason="cheaper",
        actor=SYSTEM, scheduled_for=clock.now() + timedelta(hours=1),
    )  # fmt: skip
    with time_machine.travel(clock.now() + timedelta(hours=2)):
        call_command("post_restore", reason="backup")
        evaluate([rollout.pk])
    assert Rollout.objects.get(pk=rollout.pk).state == "cancelled"
    told = capsys.readouterr().out
    assert f"cancelled the scheduled {rollout.workload.name} v1 → v2. Propose it again" in told


@pytest.mark.django_db
def test_a_rollout_that_waits_for_a_person_still_waits_after_a_restore() -> None:
    assignment = builders.served(builders.environment(), builders.workload())
    candidate = builders.version(assignment.workload)
    rollout = rollout_actions.propose_rollout(
        assignment.environment,
        assignment.workload,
        candidate,
        plan=[{"mode": "full"}],
        reason="cheaper",
        actor=SYSTEM,
    )
    call_command("post_restore", reason="backup")
    assert Rollout.objects.get(pk=rollout.pk).state == "scheduled"


@pytest.mark.django_db
def test_it_starts_new_epochs_only_where_told() -> None:
    here, there = builders.environment(), builders.environment()
    call_command("post_restore", reason="backup", environment=[here.name])
    assert Environment.objects.get(pk=here.pk).epoch != here.epoch
    assert Environment.objects.get(pk=there.pk).epoch == there.epoch
    with pytest.raises(CommandError, match="no environment nowhere"):
        call_command("post_restore", reason="backup", environment=["nowhere"])


@pytest.mark.django_db
def test_the_fleet_page_names_routers_that_are_ahead_of_the_database(admin_client: Client) -> None:
    environment = builders.environment()
    Router.objects.create(
        environment=environment,
        instance="r-1",
        epoch=environment.epoch,
        revision=9,
        polled_at=environment.created_at,
    )
    page = admin_client.get(f"/console/fleet/{environment.name}/").content.decode()
    assert "This database is older than what routers have." in page
    assert "post_restore" in page


# --- the file -------------------------------------------------------------------------------------------


@pytest.fixture
def directory(settings: Any, tmp_path: Path, db: None) -> Path:
    settings.VAR_DIR = tmp_path
    builders.environment()  # its audit entry starts the chain
    return tmp_path


def header(epoch: str, revision: int) -> SnapshotHeader:
    return SnapshotHeader(1, "here", epoch, revision, 10_000)


def test_it_remembers_across_processes(directory: Path) -> None:
    HighWater().note([header("b", 5)])
    marks = [("b", 4), ("a", 9), ("b", 5), ("b", 6), ("c", 0)]
    assert [HighWater().is_behind(header(*mark)) for mark in marks] == [True, True, False, False, False]


def test_a_gateway_that_was_stopped_notices_what_followed_a_restore(
    served: Served, backup: Callable[[], None]
) -> None:
    """The environment has the revision that it served before, and it stands for something else."""
    pinned(served)
    mark = read_headers()[served.environment.name]
    HighWater().note([mark])
    assert not HighWater().is_behind(mark)
    backup()
    pinned(served)
    pinned(served)
    for later in (mark, mark._replace(revision=3)):
        assert HighWater().is_behind(later)
    assert not HighWater().is_behind(mark._replace(epoch=new_epoch(mark.epoch)))


def test_it_never_lowers_what_another_process_wrote(directory: Path) -> None:
    one, other = HighWater(), HighWater()
    for process in (one, other):
        assert not process.is_behind(header("b", 1))
    other.note([header("b", 9)])
    one.note([header("b", 5)])
    assert HighWater().is_behind(header("b", 8))


def test_it_ignores_the_marks_of_another_database(directory: Path) -> None:
    process = HighWater()
    process.note([header("b", 5)])
    content = high_water.file().read_text()
    high_water.file().write_text(content.replace(next(iter(high_water._content())), "another-chain"))
    assert not HighWater().is_behind(header("b", 4))


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}', '{"x": {"here": [1, "b"]}}', "\0"])
def test_an_invalid_file_stops_nothing(directory: Path, content: str) -> None:
    high_water.file().write_text(content)
    process = HighWater()
    assert not process.is_behind(header("b", 4))
    process.note([header("b", 5)])
    assert HighWater().is_behind(header("b", 4))


def test_a_failing_disk_stops_nothing(directory: Path, settings: Any, caplog: Any) -> None:
    settings.VAR_DIR = directory / "missing"
    process = HighWater()
    process.note([header("b", 5)])
    assert "cannot be written" in caplog.text
    assert process.is_behind(header("b", 4))
