"""The process's own figures at /metrics."""

import os

from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest

from tests.support.plane import PATIENCE_S, Plane, Served, until
from tests.support.reports import batch, bucket

PID = str(os.getpid())


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"pointsman_{name}", {"pid": PID, **labels})


def _requests(door: str, status: int) -> float | None:
    return _value("router_requests_total", door=door, status=str(status))


def test_it_counts_answers_by_door_and_status(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    plane.snapshot(served.key, if_none_match=tag)
    plane.snapshot(served.key, if_none_match=tag)
    plane.snapshot("nobody")
    plane.get("/router/v1/nowhere", served.key)
    assert [_requests("snapshot", status) for status in (200, 304, 401)] == [1, 2, 1]
    assert _requests("none", 404) == 1
    assert _value("snapshot_bodies_built_total") == 1  # however often it was sent


def test_it_counts_reports_and_the_groups_they_were_committed_in(plane: Plane, served: Served) -> None:
    report = batch(bucket(served.assignment))
    assert plane.post("/router/v1/outcomes", served.key, report).status == 202
    assert plane.post("/router/v1/outcomes", served.key, b"{").status == 400
    assert (_requests("outcomes", 202), _requests("outcomes", 400)) == (1, 1)
    assert _value("ingest_group_requests_count") == _value("ingest_group_requests_sum") == 1
    assert _value("ingest_waiting_requests") == _value("ingest_waiting_parts") == 0


def test_it_tells_what_is_held_and_how_old_it_is(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    poll = plane.begin("/router/v1/snapshot", served.key, if_none_match=tag, prefer="wait=30")
    until(lambda: _value("long_polls_held") == 1)
    assert _value("snapshot_revision", environment=served.environment.name) == 1
    assert (_value("snapshot_look_age_seconds") or 99) < 60
    assert (_value("keys_age_seconds") or 99) < 60
    assert _value("fleet_buffered") is not None
    plane.loop.call_soon_threadsafe(plane.gateway.drain)
    poll.result(PATIENCE_S)
    until(lambda: _value("long_polls_held") == 0)


def test_every_figure_says_what_it_is(plane: Plane, served: Served) -> None:
    plane.snapshot(served.key)
    text = generate_latest(REGISTRY).decode()
    ours = [line for line in text.splitlines() if line.startswith("pointsman_") and PID in line]
    assert len(ours) >= 10
    for line in ours:
        name = line.partition("{")[0]
        described = [name, name.removesuffix("_sum"), name.removesuffix("_count")]
        assert any(f"# HELP {each} " in text for each in described), name


def test_the_figures_go_with_the_process(served: Served) -> None:
    with Plane():
        assert _value("long_polls_held") == 0
    assert _value("long_polls_held") is None
