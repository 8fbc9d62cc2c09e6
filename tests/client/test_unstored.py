"""A disk that refuses what was applied: the router uses it, and its ETag waits for the disk."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman import Router
from pointsman.errors import SnapshotRefused
from pointsman.policy import digest
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.store import DiskStore, Received
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import always, two_stage
from tests.client.watching import eventually, polls

PADDED = two_stage(rules=[{"id": "r", "when": "request.turns > 3", "use": "large", "note": "n" * 2_000}])


class FullDisk(DiskStore):
    """Refuses writes while `full`."""

    full = False

    def save(self, chain: Sequence[Received]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().save(chain)


class Plane(FakeControlPlane):
    """Knows which poll is waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Request | None = None

    def _snapshot(self, request: Request) -> Reply:
        self.asked = request
        return super()._snapshot(request)

    def held(self) -> Request | None:
        """The currently waiting long poll."""
        asked = self.asked
        answered = asked is None or any(asked is request for request in self.requests)
        return None if answered or not asked or not asked.wait_s else asked


@pytest.fixture
def disk(tmp_path: Path) -> FullDisk:
    return FullDisk(tmp_path / "snapshot")


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane()
    with plane:
        plane.poll_interval_ms = 200
        plane.serve("summaries", two_stage())
        plane.serve("other", PADDED)  # deltas stay smaller than the whole
        yield plane


def asked_from(request: Request) -> str:
    """Return the revision in If-None-Match, "" without one."""
    tag = request.headers.get("If-None-Match", "")
    return tag.split(".")[1] if tag else ""


def applied(plane: FakeControlPlane) -> list[int]:
    return [ack["revision"] for ack in plane.acks if ack["state"] == "applied"]


def rolled_out_onto_a_full_disk(plane: Plane, disk: FullDisk) -> Router:
    """A router with revision 2 on disk and revision 3 only in memory."""
    router = plane.router(store=disk)
    disk.full = True
    plane.roll_out("summaries", always("large"), mode="full")
    assert eventually(lambda: router.revision == 3)
    assert router.decide("summaries").model == "vendor/large"
    return router


def next_poll(plane: Plane, router: Router) -> Request:
    """Return the long poll that starts once the disk has stored everything, and end it with a change."""
    assert eventually(plane.held)
    poll, revision = plane.held(), plane.revision + 1
    assert poll is not None
    plane.pin("other", "large")
    assert eventually(lambda: router.revision == revision)
    return poll


def test_a_rollback_is_applied_at_once_while_its_etag_stays_at_the_stored_one(
    plane: Plane, disk: FullDisk
) -> None:
    with rolled_out_onto_a_full_disk(plane, disk) as router:
        plane.roll_back("summaries")
        assert eventually(lambda: router.revision == 4)
        assert router.decide("summaries").model == "vendor/small"
        seen = len(polls(plane))
        assert plane.wait_for(lambda: len(polls(plane)) >= seen + 2)
        last = polls(plane)[-1]
        assert (asked_from(last), last.since) == ("2", 4)
        assert DiskStore(disk.path).load()[-1].etag == last.headers["If-None-Match"]
        assert router.status()["store_errors"] >= 2


def test_a_rollback_does_not_wait_for_a_hanging_disk(
    plane: Plane, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with plane.router(store=disk) as router:
        release = threading.Event()
        monkeypatch.setattr(disk, "save", lambda chain: release.wait(60))
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.decide("summaries").model == "vendor/large")
        release.set()


def test_its_etag_advances_once_the_disk_has_stored_it(plane: Plane, disk: FullDisk) -> None:
    with rolled_out_onto_a_full_disk(plane, disk) as router:
        disk.full = False
        poll = next_poll(plane, router)
        assert (asked_from(poll), poll.wait_s, poll.since) == ("3", 25, 3)
    assert Router(plane.url, "k", store=disk.path, start=False).revision == 4


def test_a_restart_uses_the_stored_snapshot(plane: Plane, disk: FullDisk) -> None:
    rolled_out_onto_a_full_disk(plane, disk).close()
    with plane.outage(), plane.router(store=disk.path, ready=False) as router:
        assert (router.revision, router.decide("summaries").model) == (2, "vendor/small")


def test_it_polls_at_the_interval_while_the_disk_refuses(plane: Plane, disk: FullDisk) -> None:
    with rolled_out_onto_a_full_disk(plane, disk) as router:
        before, began = len(polls(plane)), time.monotonic()
        assert plane.wait_for(lambda: len(polls(plane)) >= before + 5)
        more = polls(plane)[before:]
        assert time.monotonic() - began >= 4 * 0.16
        status = router.status()
    assert {request.wait_s for request in more} == {0.0}
    assert {(asked_from(request), request.since) for request in more} == {("2", 3)}
    assert status["snapshots_applied"] == 2, "the same revision again is not an advance"
    assert (status["last_error"], status["poll_failures"]) == (None, 0)


def test_it_polls_without_an_etag_while_nothing_was_ever_stored(plane: Plane, disk: FullDisk) -> None:
    disk.full = True
    with plane.router(store=disk) as router:
        assert router.ready
        assert plane.wait_for(lambda: len(polls(plane)) >= 3)
        assert {asked_from(request) for request in polls(plane)} == {""}
        disk.full = False
        assert asked_from(next_poll(plane, router)) == "2"


def test_it_follows_a_restore_while_the_disk_refuses(plane: Plane, disk: FullDisk) -> None:
    with rolled_out_onto_a_full_disk(plane, disk) as router:
        plane.restore(revision=1)
        assert eventually(lambda: router.status()["epoch"] == plane.epoch)
        assert router.revision == 1
        disk.full = False
        assert plane.epoch in next_poll(plane, router).headers["If-None-Match"]


def test_it_repeats_its_acknowledgement_while_its_etag_cannot_advance(plane: Plane, disk: FullDisk) -> None:
    with rolled_out_onto_a_full_disk(plane, disk) as router:
        assert plane.wait_for(lambda: applied(plane).count(3) >= 3)
        disk.full = False
        next_poll(plane, router)
        assert plane.wait_for(lambda: 4 in applied(plane))
        said = applied(plane).count(3)
        time.sleep(0.6)
        assert applied(plane).count(3) == said


def test_it_repeats_a_lost_acknowledgement(plane: Plane) -> None:
    plane.fail(503, path="/acks", times=2)
    with plane.router():
        assert plane.wait_for(lambda: applied(plane) == [2])


def test_it_sends_a_received_acknowledgement_once(plane: Plane) -> None:
    with plane.router(wait_s=0):
        assert plane.wait_for(lambda: len(polls(plane)) >= 4)
    assert applied(plane) == [2]


# In memory meanwhile


def body(revision: int, *, full: bool, **changes: Any) -> Received:
    document = {
        "padding": " " * 1_000 if full else "",
        "format": 1, "environment": "test", "epoch": "e", "revision": revision, "full": full,
        "workloads": {}, "removed": [], **changes,
    }  # fmt: skip
    return Received(json.dumps(document).encode(), f'"e.{revision}.0123456789abcdef"')


def test_it_keeps_no_delta_without_changes(disk: FullDisk) -> None:
    good = LastKnownGood(store=disk)
    good.receive(body(1, full=True))
    disk.full = True
    good.receive(body(2, full=False, removed=["other"]))
    for _ in range(100):
        good.receive(body(2, full=False))
    assert good.since == 2
    disk.full = False
    good.store()
    assert len(disk.load()) == 2
    assert (good.etag, good.unstored) == ('"e.2.0123456789abcdef"', False)


def test_a_304_to_an_older_etag_does_not_acknowledge_what_was_applied(disk: FullDisk) -> None:
    good = LastKnownGood(store=disk)
    good.receive(body(1, full=True))
    disk.full = True
    good.receive(body(2, full=False))
    heard = good.confirmed_at
    good.confirm()
    assert good.confirmed_at == heard


def test_without_a_store_its_etag_is_the_applied_one() -> None:
    good = LastKnownGood()
    good.receive(body(1, full=True))
    assert (good.etag, good.unstored) == ('"e.1.0123456789abcdef"', False)
    with pytest.raises(SnapshotRefused):
        good.receive(body(0, full=True))
    assert good.etag == '"e.1.0123456789abcdef"'


CHANGES = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | st.integers(1, 3)), min_size=1, max_size=4
)


@given(st.lists(st.tuples(CHANGES, st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_the_disk_matches_the_etag(steps: list[tuple[Any, bool, bool]]) -> None:
    """Each step: what changes, whether it arrives as a full snapshot, whether the disk is full."""
    with TemporaryDirectory() as directory:
        disk = FullDisk(Path(directory) / "snapshot")
        good = LastKnownGood(store=disk)
        good.receive(body(1, full=True))
        workloads: dict[str, Any] = {}
        for revision, (changes, full, disk.full) in enumerate(steps, start=2):
            for name, version in changes:
                workloads[name] = None if version is None else entry(version, name)
            changed = dict(changes)
            told = {n: e for n, e in workloads.items() if e is not None and (full or n in changed)}
            removed = [n for n in changed if workloads[n] is None and not full]
            good.receive(body(revision, full=full, workloads=told, removed=removed))
            assert good.current is not None
            assert good.current.entries == {n: e for n, e in workloads.items() if e is not None}
            restarted = LastKnownGood(store=DiskStore(disk.path)).load()
            assert restarted is not None
            assert restarted.etag == good.etag
            assert good.unstored is disk.full
            if not disk.full:
                assert (restarted.revision, restarted.entries) == (revision, good.current.entries)


def entry(version: int, name: str) -> dict[str, Any]:
    policy = {**always("large" if version % 2 else "small"), "workload": name}
    side = {"version": version, "digest": digest(policy), "policy": policy}
    return {
        "revision": 1,
        "unit": "request",
        "baseline": side,
        "candidate": None,
        "rollout": None,
        "pin": None,
    }
