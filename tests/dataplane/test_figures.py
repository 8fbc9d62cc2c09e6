"""The process's own metrics at /metrics."""

import os
import re

import pytest
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from controlplane.core import figures as database_figures
from policies_app.snapshots.watcher import Watcher
from tests.support.plane import PATIENCE_S, Plane, Served, until
from tests.support.reports import batch, bucket
from tests.support.sources import ROOT

PID = str(os.getpid())


def _value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"pointsman_{name}", {"pid": PID, **labels})


def _requests(door: str, status: int) -> float | None:
    return _value("router_requests_total", door=door, status=str(status))


def test_it_counts_answers_by_endpoint_and_status(plane: Plane, served: Served) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    plane.snapshot(served.key, if_none_match=tag)
    plane.snapshot(served.key, if_none_match=tag)
    plane.snapshot("nobody")
    plane.get("/router/v1/nowhere", served.key)
    assert [_requests("snapshot", status) for status in (200, 304, 401)] == [1, 2, 1]
    assert _requests("none", 404) == 1
    assert _value("snapshot_bodies_built_total") == 1  # regardless of how often it was sent


def test_it_counts_reports_and_the_groups_they_were_committed_in(plane: Plane, served: Served) -> None:
    report = batch(bucket(served.assignment))
    assert plane.post("/router/v1/outcomes", served.key, report).status == 202
    assert plane.post("/router/v1/outcomes", served.key, b"{").status == 400
    assert (_requests("outcomes", 202), _requests("outcomes", 400)) == (1, 1)
    assert _value("ingest_group_requests_count") == _value("ingest_group_requests_sum") == 1
    assert _value("ingest_waiting_requests") == _value("ingest_waiting_parts") == 0


def test_it_reports_held_polls_and_the_age_of_the_data(plane: Plane, served: Served) -> None:
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


def test_a_process_that_has_read_nothing_yet_has_the_age_of_its_watcher(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarted while the database was away, a gateway had neither age, and both alerts ended."""
    monkeypatch.setattr(Watcher, "polled_ago", lambda watcher: None)
    monkeypatch.setattr(Watcher, "keys_read_ago", lambda watcher: None)
    monkeypatch.setattr(Watcher, "age", lambda watcher: 77.0)
    assert _value("snapshot_look_age_seconds") == _value("keys_age_seconds") == 77


def test_every_metric_has_a_help_text(plane: Plane, served: Served) -> None:
    plane.snapshot(served.key)
    text = generate_latest(REGISTRY).decode()
    ours = [line for line in text.splitlines() if line.startswith("pointsman_") and PID in line]
    assert len(ours) >= 10
    for line in ours:
        name = line.partition("{")[0]
        described = [name, name.removesuffix("_sum"), name.removesuffix("_count")]
        assert any(f"# HELP {each} " in text for each in described), name


def _documented() -> dict[str, set[str]]:
    """Return the labels that docs/reference/metrics.md gives each name (without `pointsman_`)."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs/reference/metrics.md").read_text().splitlines():
        cells = line.split("|")
        if len(cells) == 5 and cells[1].strip().startswith("`"):
            for name in re.findall(r"`([a-z_]+)`", cells[1]):
                found[name] = set(re.findall(r"`([a-z_]+)`", cells[2]))
    return found


def test_each_metric_and_its_labels_are_documented(plane: Plane, served: Served) -> None:
    """Parsed like Prometheus does. Metrics that the client exports under the same prefix are excluded."""
    assert plane.post("/router/v1/outcomes", served.key, batch(bucket(served.assignment))).status == 202
    database_figures.refresh()
    documented, seen = _documented(), set()
    text = plane.get("/metrics").body.decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removeprefix("pointsman_")
            if name == sample.name or name.endswith("_created"):
                continue
            name = name.removesuffix("_bucket") if family.type == "histogram" else name
            if family.type == "histogram" and name not in documented:
                name = re.sub(r"_(sum|count)$", "", name)
            assert name in documented, f"{sample.name} is not in docs/reference/metrics.md"
            assert set(sample.labels) - {"pid", "le"} == documented[name], sample
            seen.add(name)
    assert {
        "outcomes_total",
        "outcomes_missing_total",
        "outcome_latency_seconds",
        "router_requests_total",
    } <= seen
    assert {"rollbacks_total", "audit_entries", "evaluation_overdue_seconds"} <= set(documented)


def test_each_endpoint_of_the_counter_is_documented(plane: Plane) -> None:
    page = (ROOT / "docs/reference/metrics.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith("| `router_requests_total`"))
    figures = plane.gateway._figures
    assert figures is not None
    assert set(re.findall(r"`([a-z-]+)`", row.split("|")[3])) == set(figures.answered)


def test_it_counts_outcomes_by_arm_and_their_missing_figures(plane: Plane, served: Served) -> None:
    place = {"environment": served.environment.name, "arm": "baseline"}
    latency = {"scale": 4, "zero": 2, "counts": {"95": 3, "160": 10, "400": 1}}
    known = bucket(served.assignment, successes=100, ungraded=9, latency_ms=latency, cost_nusd={})
    assert plane.post("/router/v1/outcomes", served.key, batch(known)).status == 202
    grades = [_value("outcomes_total", grade=grade, **place) for grade in ("success", "failure", "none")]
    assert grades == [100, 9, 9]
    missing = {
        name: _value("outcomes_missing_total", figure=name, **place) for name in ("cost", "grade", "latency")
    }
    assert missing == {"cost": 118, "grade": 9, "latency": 118 - 16}
    under = [
        _value("outcome_latency_seconds_bucket", le=edge, **place) for edge in ("0.1", "1.0", "2.5", "+Inf")
    ]
    assert under == [5, 5, 15, 16]  # 0 and 63 ms, 1,046 ms, and more than nine hours
    assert plane.post("/router/v1/outcomes", served.key, b"{").status == 400
    assert _value("outcomes_total", grade="success", **place) == 100, "refused outcomes are not counted"


def test_the_metrics_end_with_the_process(served: Served) -> None:
    with Plane():
        assert _value("long_polls_held") == 0
    assert _value("long_polls_held") is None
