"""Starting from disk, and the remains of an earlier process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman import Pace, Router
from pointsman.reporting.spool import Spool
from pointsman.sync.store import DiskStore, Received
from pointsman.testing import FakeControlPlane
from tests.client.policies import always, two_stage
from tests.client.watching import eventually, polls


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage(), unit="conversation")
        yield plane


def offline(**options: Any) -> Router:
    return Router("http://127.0.0.1:9", "pmr_test", start=False, **options)


def test_it_starts_from_disk_while_the_control_plane_is_unavailable(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    store = tmp_path / "snapshot"
    plane.router(store=store).close()
    with plane.outage(), plane.router(store=store, ready=False) as router:
        assert router.ready
        assert router.wait_ready(0)
        assert (router.revision, router.decide("summaries").model) == (1, "vendor/small")
    restarted = plane.router(store=store)
    plane.requests.clear()
    plane.serve("summaries", always("large"), version=2)
    assert eventually(lambda: restarted.revision == 2)
    restarted.close()
    assert offline(store=store).decide("summaries").model == "vendor/large"


def test_it_restores_a_chain_of_signed_deltas_and_verifies_each(tmp_path: Path) -> None:
    store = tmp_path / "snapshot"
    with FakeControlPlane(sign=True) as plane:
        plane.serve("summaries", two_stage())
        plane.serve(
            "padding",
            two_stage(rules=[{"id": "r", "when": "request.turns > 3", "use": "large", "note": "n" * 900}]),
        )
        with plane.router(store=store, public_keys=plane.public_keys) as router:
            plane.serve("summaries", always("large"), version=2)
            assert eventually(lambda: router.revision == 3)
        assert store.read_bytes().count(b'"signature"') == 2
        again = offline(store=store, public_keys=plane.public_keys)
        assert (again.revision, again.decide("summaries").model) == (3, "vendor/large")
        stranger = {"test-key": FakeControlPlane(sign=True).public_keys["test-key"]}
        refused = offline(store=store, public_keys=stranger)
        assert not refused.ready
        assert "altered" in refused.status()["store_problem"]


def test_it_requests_a_full_snapshot_before_the_chain_on_disk_outgrows_it(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    with plane.router(store=tmp_path / "snapshot") as router:
        for version in range(2, 12):
            plane.serve("summaries", always("large" if version % 2 else "small"), version=version)
            assert eventually(lambda: router.revision == version)  # noqa: B023 — at once
    asked = [request.since for request in plane.requests if request.path.endswith("/snapshot")]
    assert None in asked[1:]
    assert any(since is not None for since in asked)
    assert (tmp_path / "snapshot").stat().st_size < 10_000


def test_it_gets_the_workloads_that_were_added_to_its_selection(
    plane: FakeControlPlane, tmp_path: Path
) -> None:
    """It asked only for what was newer than its file, so it never got them, and counted as having applied them."""
    plane.serve("chat", two_stage(workload="chat"))
    store = tmp_path / "snapshot"
    plane.router(store=store, workloads=["summaries"]).close()
    with plane.router(store=store, workloads=["summaries", "chat"]) as router:
        assert eventually(lambda: router.status()["workloads"] == 2)
    with plane.router(store=store, workloads=["summaries"]) as router:
        assert eventually(lambda: router.status()["workloads"] == 1)


def test_it_asks_for_everything_after_a_change_of_its_key(plane: FakeControlPlane) -> None:
    """Another key may read other workloads."""
    with Router(plane.url, lambda: plane.key, pace=Pace(first_poll_within=0)) as router:
        assert eventually(lambda: any(poll.since == 1 for poll in polls(plane)))
        plane.requests.clear()
        plane.key = "pmr_another"
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: router.revision == 2)
        assert plane.wait_for(lambda: any(poll.since == 2 for poll in polls(plane)))
    with_it = [poll.since for poll in polls(plane) if poll.headers["Authorization"].endswith("pmr_another")]
    assert with_it[0] is None
    assert set(with_it[1:]) == {2}


def test_an_unchanged_file_costs_a_restart_only_a_304(plane: FakeControlPlane, tmp_path: Path) -> None:
    plane.router(store=tmp_path / "snapshot").close()
    plane.requests.clear()
    with plane.router(store=tmp_path / "snapshot") as router:
        assert plane.wait_for(lambda: len(polls(plane)) >= 1)
        assert eventually(lambda: router.status()["polls"] >= 2)
        assert router.status()["snapshots_applied"] == 0


def test_it_applies_a_snapshot_even_if_the_disk_refuses(plane: FakeControlPlane, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with plane.router(store=tmp_path / "file" / "snapshot") as router:
        assert router.revision == 1
        assert eventually(lambda: router.status()["store_errors"])
        assert router.status()["store_problem"]


def test_it_sends_the_spool_of_an_earlier_process(plane: FakeControlPlane, tmp_path: Path) -> None:
    router = plane.router(spool=tmp_path, pace=Pace(first_poll_within=0, flush_every=60, stop_within=20))
    router.record(router.decide("summaries"), success=True)
    with plane.outage():
        router.close()
    (left,) = tmp_path.iterdir()
    body = json.loads(left.read_bytes())
    with plane.router(spool=Spool(tmp_path, orphaned_after_s=0)):
        assert plane.wait_for(lambda: plane.tasks("summaries") == 1)
    assert list(plane.batches) == [body["batch_id"]]
    sent = [request for request in plane.requests if request.path.endswith("/outcomes")]
    assert sent[0].headers["Pointsman-Router"] == body["router"]
    assert list(tmp_path.iterdir()) == []


def stored(path: Path, environment: str) -> None:
    with FakeControlPlane(environment=environment) as other:
        other.serve("summaries", always("large"), version=7)
        other.router(store=path).close()


def test_it_leaves_the_environment_of_a_file_for_that_of_its_key(
    plane: FakeControlPlane, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a machine that moved to another environment would refuse each snapshot, and follow the old one."""
    stored(tmp_path / "snapshot", "staging")
    with plane.router(store=tmp_path / "snapshot", ready=False) as router:
        assert router.ready, "in an outage, the file is what there is"
        assert eventually(lambda: router.status()["environment"] == "test")
        assert router.decide("summaries").model == "vendor/small"
        assert plane.wait_for(lambda: any(ack["epoch"] == plane.epoch for ack in plane.acks))
        plane.environment = "elsewhere"
        plane.serve("summaries", always("large"), version=2)
        assert eventually(lambda: "environment_mismatch" in (router.status()["last_error"] or ""))
        assert router.decide("summaries").model == "vendor/small", (
            "what the control plane has confirmed stays"
        )
    assert "the stored snapshot was of 'staging'" in caplog.text
    assert offline(store=tmp_path / "snapshot").status()["environment"] == "test"


def test_a_file_of_another_environment_than_configured_is_not_used(tmp_path: Path) -> None:
    stored(tmp_path / "snapshot", "staging")
    router = offline(store=tmp_path / "snapshot", environment="test")
    assert not router.ready
    assert "'staging'" in router.status()["store_problem"]


def test_it_starts_despite_a_file_that_no_program_of_ours_wrote(tmp_path: Path) -> None:
    body = b'{"format": 1, "environment": "e", "epoch": "e", "revision": 1, "full": true, "workloads": {}}'
    path = tmp_path / "snapshot"
    DiskStore(path).save([Received(body, '"e.' + "9" * 5_000 + '.0123456789abcdef"')])
    assert "another revision" in offline(store=path).status()["store_problem"]
