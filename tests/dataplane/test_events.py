"""POST /router/v1/events: single outcomes, each counted once, aggregated by the server."""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.utils import timezone

from rollout_app import actions
from rollout_app.models import ArmTotals, OutcomeBucket, Rollout
from tests.support import places
from tests.support.plane import Plane, Served, router_key
from tests.support.reports import event

DOOR = "/router/v1/events"
AT = "2026-11-24T05:00:30Z"


def test_it_aggregates_events_into_buckets(plane: Plane, served: Served) -> None:
    at = event(served.assignment)["at"]
    good = event(served.assignment, at=at)
    bad = event(
        served.assignment, at=at, success=False, error="timeout", retries=2, attempts=3, escalated=True,
        quality=None, cost_nusd=0, latency_ms=0,
    )  # fmt: skip
    ungraded = event(served.assignment, at=at, success=None, fallback=True, cost_nusd=None, latency_ms=None)
    answer = plane.post(DOOR, served.key, {"events": [good, bad, ungraded]})
    row = OutcomeBucket.objects.get()
    assert (answer.status, answer.json()) == (202, {"accepted": 3})
    assert (row.tasks, row.successes, row.failures, row.ungraded) == (3, 1, 1, 1)
    assert (row.errors, row.escalations, row.fallbacks, row.retries, row.attempts) == (1, 1, 1, 1, 5)
    assert (row.quality_n, row.confidence_n, row.cost_n) == (2, 3, 2)
    assert (row.cost_sum, row.cost_on_success, row.capped_sum) == (410_000, 410_000, 410_000)
    assert row.cost_histogram == {"zero": 1, "counts": {"298": 1}}
    assert row.latency_histogram == {"zero": 1, "counts": {"154": 1}}
    assert row.errors_by_kind == {"timeout": 1}
    assert row.minute.second == 0


def test_kinds_of_errors_without_end_are_added_up(plane: Plane, served: Served) -> None:
    """A router that reports an error's whole text made the minute's row grow, and each report slower."""
    failed = [event(served.assignment, success=False, error=f"no answer to request {n}") for n in range(70)]
    for some in (failed[:40], failed[40:]):
        assert plane.post(DOOR, served.key, {"events": some}).status == 202
    for row in (OutcomeBucket.objects.get(), ArmTotals.objects.get()):
        kinds = row.errors_by_kind
        assert (len(kinds), kinds["other"], sum(kinds.values()), row.errors) == (65, 6, 70, 70)


def test_it_counts_each_event_once(plane: Plane, served: Served) -> None:
    one, two, three = (event(served.assignment) for _ in range(3))
    plane.post(DOOR, served.key, {"events": [one, two, two]})
    answer = plane.post(DOOR, served.key, {"events": [one, two, three]})
    assert answer.json() == {"accepted": 3}
    assert sum(row.tasks for row in ArmTotals.objects.all()) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event_id", ""),
        ("event_id", "x" * 63),
        ("event_id", "nul\0"),
        ("at", "yesterday"),
        ("at", "2020-01-01T00:00:00Z"),
        ("workload", "nobody"),
        ("version", 99),
        ("arm", "candidate"),
        ("quality", 1.1),
        ("confidence", -0.1),
        ("cost_nusd", -1),
        ("cost_nusd", 0.5),
        ("latency_ms", -1),
        ("latency_ms", 1e300),
        ("retries", -1),
        ("success", "yes"),
        ("error", "nul\0"),
        ("surprise", 1),
    ],
)
def test_it_refuses_an_impossible_event(plane: Plane, served: Served, field: str, value: Any) -> None:
    events = [event(served.assignment), event(served.assignment, **{field: value})]
    answer = plane.post(DOOR, served.key, {"events": events})
    code = "too_old" if value == "2020-01-01T00:00:00Z" else "invalid_input"
    assert (answer.status, answer.code) == (422, code)
    assert {problem["index"] for problem in answer.json()["problems"]} == {1}
    assert not OutcomeBucket.objects.exists()


@pytest.mark.parametrize("path", ["outcomes", "events", "feedback"])
@pytest.mark.parametrize(
    "body",
    [
        b'{"%s": [{"at": 1, "batch_id": 1}',  # the first mistake is a wrong shape; then the text ends
        b'{"%s": [{"at": "\xff"}], "more": 1}',
        b'{"%s": [{"at": ' + b"[" * 50_000,
    ],
)
def test_it_refuses_a_wrong_and_truncated_body(plane: Plane, served: Served, path: str, body: bytes) -> None:
    member = b"buckets" if path == "outcomes" else path.encode()
    answer = plane.post(f"/router/v1/{path}", served.key, body % member)
    assert answer.status in (400, 422)
    assert answer.code in ("malformed_body", "invalid_input")


def test_it_accepts_at_most_a_thousand(plane: Plane, served: Served) -> None:
    events = [event(served.assignment, event_id=str(n)) for n in range(1_001)]
    many = plane.post(DOOR, served.key, {"events": events})
    assert (many.status, many.code) == (413, "body_too_large")
    assert plane.post(DOOR, served.key, {"events": events[:1_000]}).json() == {"accepted": 1_000}
    assert sum(row.tasks for row in ArmTotals.objects.all()) == 1_000


@pytest.fixture
def compared(transactional_db: None) -> Rollout:
    """Return a rollout in its second percentage stage, with a cost cap."""
    rollout = places.started(plan=places.PLAN[1:], calibrated=False)
    rollout = actions.advance_rollout(rollout, actor=places.BEN, reason="go on")
    rollout.reference = {"cost_cap_nusd": 9_000_000}
    rollout.save(update_fields=["reference"])
    return rollout


def event_of(rollout: Rollout, **changes: Any) -> dict[str, Any]:
    """The example of the protocol: it names a rollout and no stage."""
    fields = {
        "arm": "candidate", "version": rollout.candidate.number, "rollout": str(rollout.pk),
        "at": timezone.now().isoformat(),
    }  # fmt: skip
    return event(places.assignment(rollout), **fields | changes)


@pytest.mark.parametrize(("given", "counted"), [({}, 1), ({"stage": None}, 1), ({"stage": 0}, 0)])
def test_an_event_of_a_rollout_counts_for_its_stage(
    compared: Rollout, given: dict[str, Any], counted: int
) -> None:
    """A client that asks for a model as for a flag is not told the stage: its events were accepted, and never read."""
    with Plane() as plane:
        answer = plane.post(
            DOOR, router_key(compared.environment.name), {"events": [event_of(compared, **given)]}
        )
    row = ArmTotals.objects.get()
    assert (answer.status, row.rollout, row.stage) == (202, str(compared.pk), counted)


def test_a_late_event_counts_for_the_stage_of_its_time(transactional_db: None) -> None:
    """Counted for the stage served now, tasks of 5 % would look like a wrong share at 25 %."""
    now = timezone.now()
    with time_machine.travel(now - timedelta(minutes=30)):
        rollout = places.started(plan=places.PLAN[1:], calibrated=False)
    with time_machine.travel(now - timedelta(minutes=10)):
        actions.advance_rollout(rollout, actor=places.BEN, reason="go on")
    events = [
        event_of(rollout, event_id=str(ago), at=(now - timedelta(minutes=ago)).isoformat())
        for ago in (40, 20, 5)
    ]
    with Plane() as plane:
        answer = plane.post(DOOR, router_key(rollout.environment.name), {"events": events})
    stages = ArmTotals.objects.order_by("minute").values_list("stage", flat=True)
    assert (answer.status, list(stages)) == (202, [0, 0, 1])


def test_an_event_of_a_rollout_that_has_ended_is_of_no_stage(compared: Rollout) -> None:
    actions.abort_rollout(compared, actor=places.BEN, reason="enough")
    with Plane() as plane:
        answer = plane.post(DOOR, router_key(compared.environment.name), {"events": [event_of(compared)]})
    assert (answer.status, ArmTotals.objects.get().stage) == (202, -1)


def test_a_cost_is_capped(compared: Rollout) -> None:
    """One event of a thousand dollars decided the comparison of the costs."""
    events = [event_of(compared, cost_nusd=cost) for cost in (10**12, 4_000_000)]
    with Plane() as plane:
        plane.post(DOOR, router_key(compared.environment.name), {"events": events})
    row = ArmTotals.objects.get()
    assert (row.cost_sum, row.cost_on_success) == (10**12 + 4_000_000,) * 2
    assert (row.capped_sum, row.capped_on_success) == (13_000_000,) * 2
    assert (row.graded_capped_sum, row.graded_capped_on_success) == (13_000_000,) * 2
    assert row.capped_sum_sq == row.graded_capped_sum_sq == 9_000_000.0**2 + 4_000_000.0**2
