"""POST /router/v1/acks, and the tags of polls: which routers have applied what."""

from typing import Any

import pytest
from django.db import OperationalError

from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.fleet import readback
from policies_app.fleet.acks import Ack
from policies_app.fleet.buffer import FleetBuffer
from policies_app.fleet.writer import flush, prune
from policies_app.models import Router
from tests.support import builders
from tests.support.places import listening
from tests.support.plane import Plane, Served, until

DOOR = "/router/v1/acks"


def _row(instance: str) -> Router | None:
    return Router.objects.filter(instance=instance).first()


def test_it_understands_applied_from_the_tag(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key, pointsman_router="r-1", pointsman_client="pointsman/1.0").headers["etag"]
    plane.snapshot(served.key, if_none_match=tag, pointsman_router="r-1", pointsman_client="pointsman/1.0")
    row = until(lambda: (row := _row("r-1")) and row.revision == 1 and row)
    assert isinstance(row, Router)
    assert (row.client, row.epoch) == ("pointsman/1.0", served.environment.epoch)
    assert row.applied_at is not None


def test_it_counts_an_unnamed_router_under_its_key(plane: Plane, served: Served) -> None:
    plane.snapshot(served.key, pointsman_router="caf\u00e9")
    assert until(lambda: _row(f"key {served.key.split('_')[2]}"))


def test_it_keeps_an_applied_ack(plane: Plane, served: Served) -> None:
    answer = plane.post(DOOR, served.key, {"router": "r-2", "revision": 1, "state": "applied"})
    assert (answer.status, answer.body) == (204, b"")
    view = until(lambda: (v := readback.read_back(served.environment, 1)).of and v)
    assert isinstance(view, readback.Readback)
    assert (view.confirmed, view.of, view.stragglers, view.rejected) == (1, 1, [], [])
    assert readback.read_back(served.environment, 2).stragglers == ["r-2"]


def test_it_does_not_count_an_ack_of_another_epoch(plane: Plane, served: Served) -> None:
    plane.post(DOOR, served.key, {"router": "r-3", "revision": 9, "epoch": "older", "state": "applied"})
    until(lambda: _row("r-3"))
    assert readback.read_back(served.environment, 1).confirmed == 0


def test_it_shows_a_refusal_while_the_document_is_served(plane: Plane, served: Served) -> None:
    name, digest = served.assignment.workload.name, served.assignment.baseline.digest
    refusal = {
        "router": "r-4",
        "state": "rejected",
        "workload": name,
        "digest": digest,
        "error": "no",
    }
    assert plane.post(DOOR, served.key, refusal).status == 204
    view = until(lambda: (v := readback.read_back(served.environment, 1)).rejected and v)
    assert isinstance(view, readback.Readback)
    assert view.rejected == [readback.Refusal("r-4", name, digest, "no")]

    actions.stop_serving(served.assignment, actor=SYSTEM, reason="it does not work")
    assert readback.read_back(served.environment, 2).rejected == []


def test_it_keeps_a_refusal_through_later_polls(plane: Plane, served: Served) -> None:
    name, digest = served.assignment.workload.name, served.assignment.baseline.digest
    refusal = {"router": "r-5", "state": "rejected", "workload": name, "digest": digest, "error": "no"}
    plane.post(DOOR, served.key, refusal)
    until(lambda: readback.read_back(served.environment, 1).rejected)
    plane.post(DOOR, served.key, {"router": "r-5", "revision": 1, "state": "applied"})
    until(lambda: readback.read_back(served.environment, 1).confirmed)
    assert len(readback.read_back(served.environment, 1).rejected) == 1


def test_it_keeps_a_refusal_that_could_not_be_written(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failover in the two seconds after 204. A router says it only once, and the rollout would go on."""
    name, digest = served.assignment.workload.name, served.assignment.baseline.digest
    refusal = Ack("rejected", "r-5", workload=name, digest=digest, error="no")
    heard, place = FleetBuffer(), (served.environment.pk, "r-5", "")
    heard.polled(*place, served.environment.epoch, 1)
    heard.refused(*place, 1, refusal)
    heard.left(served.environment.pk, "job", "")
    with monkeypatch.context() as patched:
        patched.setattr(Router.objects, "bulk_create", _read_only)
        with pytest.raises(OperationalError):
            flush(heard)
    elsewhere = FleetBuffer()  # another gateway hears it, and writes first
    elsewhere.polled(*place, served.environment.epoch, 1)
    flush(elsewhere)
    polled_at = Router.objects.get(instance="r-5").polled_at
    flush(heard)
    row = Router.objects.get(instance="r-5")
    assert (row.rejected[name]["error"], row.revision, row.polled_at) == ("no", 1, polled_at)
    assert Router.objects.get(instance="job").left_at is not None


def _read_only(*rows: object, **options: object) -> None:
    raise OperationalError("cannot execute INSERT in a read-only transaction")


def test_it_keeps_no_refusal_of_what_is_not_served(served: Served) -> None:
    """Its row would grow with every name that the router makes up."""
    heard = FleetBuffer()
    for name in (served.assignment.workload.name, "made-up-1", "made-up-2"):
        refusal = Ack("rejected", "r-5", workload=name, digest="d", error="no")
        heard.refused(served.environment.pk, "r-5", "", 1, refusal)
    flush(heard)
    assert list(Router.objects.get().rejected) == [served.assignment.workload.name]


def test_a_tag_that_is_too_long_is_not_ours(plane: Plane, served: Served) -> None:
    """PostgreSQL refused its epoch, and with it everything that the gateway had heard, for as long as it polled."""
    plane.snapshot(served.key, if_none_match=f'"{"e" * 37}.1.0123456789abcdef"', pointsman_router="r-5")
    row = until(lambda: _row("r-5"))
    assert isinstance(row, Router)
    assert (row.epoch, row.revision) == ("", 0)


def test_it_stops_counting_routers_that_went_silent(plane: Plane, served: Served) -> None:
    plane.post(DOOR, served.key, {"router": "r-6", "revision": 1, "state": "applied"})
    until(lambda: _row("r-6"))
    listening()
    Router.objects.update(polled_at="2020-01-01T00:00:00Z")
    assert readback.read_back(served.environment, 1).of == 0
    assert prune() == 1


def test_it_does_not_count_a_router_that_is_leaving(plane: Plane, served: Served) -> None:
    plane.post(DOOR, served.key, {"router": "job", "revision": 1, "state": "applied"})
    until(lambda: readback.read_back(served.environment, 1).of == 1)
    assert plane.post(DOOR, served.key, {"router": "job", "state": "leaving"}).status == 204
    until(lambda: readback.read_back(served.environment, 1).of == 0)


def test_it_writes_a_quiet_fleet_rarely(served: Served) -> None:
    heard = FleetBuffer()
    for _ in range(3):
        heard.polled(served.environment.pk, "r-7", "", served.environment.epoch, 1)
        flush(heard)
    first = Router.objects.get(instance="r-7").polled_at
    heard.polled(served.environment.pk, "r-7", "", served.environment.epoch, 1)
    flush(heard)
    assert Router.objects.get(instance="r-7").polled_at == first
    heard.polled(served.environment.pk, "r-7", "", served.environment.epoch, 2)
    flush(heard)
    assert Router.objects.get(instance="r-7").revision == 2


def test_it_survives_an_environment_that_was_deleted_meanwhile(served: Served) -> None:
    heard = FleetBuffer()
    heard.polled(987_654, "r-8", "", "e", 1)
    other = builders.environment()
    heard.polled(other.pk, "r-9", "", other.epoch, 1)
    flush(heard)
    assert [row.instance for row in Router.objects.all()] == ["r-9"]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"state": "maybe"},
        {"state": "applied"},
        {"state": "applied", "revision": -1},
        {"state": "applied", "revision": 2**63},
        {"state": "applied", "revision": 1, "router": "caf\u00e9"},
        {"state": "applied", "revision": 1, "epoch": "nul\0"},
        {"state": "rejected", "workload": "w"},
        {"state": "rejected", "workload": "w", "digest": "d", "error": "nul\0"},
        {"state": "rejected", "workload": "w", "digest": "d", "error": "x" * 2_001},
        {"state": "applied", "revision": 1, "surprise": 1},
    ],
)
def test_it_refuses_an_invalid_ack(plane: Plane, served: Served, document: dict[str, Any]) -> None:
    answer = plane.post(DOOR, served.key, document)
    assert (answer.status, answer.code) == (422, "invalid_input")


def test_it_refuses_a_body_that_is_not_json(plane: Plane, served: Served) -> None:
    assert plane.post(DOOR, served.key, b"{").code == "malformed_body"
    assert plane.post(DOOR, served.key, b" " * 20_000).code == "body_too_large"
