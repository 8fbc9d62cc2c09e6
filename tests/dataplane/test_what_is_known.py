"""Known costs, decisions, differing tasks and units are stored; what a router does not report stays unknown."""

from typing import Any

import pytest

from policies_app.models import Assignment, Workload
from rollout_app.engine.evidence import GradedCosts
from rollout_app.models import ArmTotals, OutcomeBucket
from rollout_app.outcomes import stored_sums
from tests.support import places
from tests.support.plane import Plane, Served, router_key
from tests.support.reports import NOW, batch, bucket, event

OUTCOMES = "/router/v1/outcomes"
MINUTE = f"{NOW:%Y-%m-%dT%H:%M:00Z}"
COSTS = {"n": 100, "sum": 100_000, "sum_sq": 1e8, "sum_on_success": 80_000,
         "histogram": {"scale": 4, "zero": 0, "counts": {"160": 100}}}  # fmt: skip
TASKS = {"tasks": 120, "successes": 90, "failures": 10, "ungraded": 20, "groups": {}}


def known(served: Served, plane: Plane, *buckets: dict[str, Any], **beside: Any) -> ArmTotals:
    """Return the arm's minute after these buckets."""
    answer = plane.post(OUTCOMES, served.key, batch(*buckets) | beside)
    assert answer.status == 202, answer.body
    return ArmTotals.objects.get()


def costs(row: ArmTotals | OutcomeBucket) -> tuple[int, ...]:
    return row.graded_n, row.graded_successes, row.graded_sum, row.graded_on_success


def test_it_stores_the_costs_of_graded_tasks(served: Served, plane: Plane) -> None:
    capped = {"sum": 80_000, "sum_sq": 8e7, "sum_on_success": 75_000}
    graded = {
        "n": 90,
        "successes": 80,
        "sum": 90_000,
        "sum_sq": 9e7,
        "sum_on_success": 80_000,
        "capped": capped,
    }
    sent = bucket(served.assignment, **TASKS, cost_nusd=COSTS | {"graded": graded, "capped": capped})
    row = known(served, plane, sent)
    for stored in (row, OutcomeBucket.objects.get()):
        assert costs(stored) == (90, 80, 90_000, 80_000)
        assert (stored.graded_capped_sum, stored.graded_capped_on_success) == (80_000, 75_000)


def test_if_every_task_has_a_grade_and_a_cost_all_costs_belong_to_graded_tasks(
    served: Served, plane: Plane
) -> None:
    row = known(served, plane, bucket(served.assignment))
    assert costs(row) == (118, 109, 51_234_000, 47_000_000)
    assert (row.graded_capped_sum, row.graded_capped_on_success) == (50_100_000, 46_000_000)


@pytest.mark.parametrize(
    "some",
    [
        TASKS,  # a fifth is ungraded, and it is unknown which costs are theirs
        {"tasks": 120, "successes": 100, "failures": 20, "ungraded": 0, "groups": {}},  # a sixth has no cost
    ],
)
def test_it_does_not_guess_which_costs_belong_to_graded_tasks(
    served: Served, plane: Plane, some: dict[str, Any]
) -> None:
    row = known(served, plane, bucket(served.assignment, **some, cost_nusd=COSTS))
    assert (row.cost_n, row.cost_sum, costs(row)) == (100, 100_000, (0, 0, 0, 0))


def test_it_counts_decisions_that_were_never_reported(served: Served, plane: Plane) -> None:
    place = {"workload": served.assignment.workload.name, "arm": "baseline", "version": 1, "minute": MINUTE}
    row = known(served, plane, decided=[{**place, "tasks": 30, "differing": 4}])
    assert (row.tasks, row.decided, row.decided_differing, row.decided_differing_known) == (0, 30, 4, 30)
    assert stored_sums.arm_sums(stored(row)).decided == 30
    row = known(served, plane, bucket(served.assignment), decided=[{**place, "tasks": 100}])
    assert (row.tasks, row.tracked, row.decided, row.decided_differing_known) == (118, 118, 130, 30)
    assert stored_sums.arm_sums(stored(row)).decided == 130
    known(served, plane, bucket(served.assignment))  # from a router that does not count decisions
    assert stored_sums.arm_sums(stored(ArmTotals.objects.get())).decided is None


def stored(row: ArmTotals) -> dict[str, Any]:
    """Return a row's stored column values."""
    import json

    texts = ("cost_histogram", "latency_histogram", "differing", "endpoints", "cells")
    return {**vars(row), **{name: json.dumps(getattr(row, name)) for name in texts}}


def in_rollout() -> tuple[Served, dict[str, Any]]:
    """Return a rollout at 10 %, and the arm and stage of its candidate's outcomes."""
    rollout = places.started(plan=places.PLAN[1:], calibrated=False)
    served = Served(rollout.environment, places.assignment(rollout), router_key(rollout.environment.name))
    return served, {"rollout": str(rollout.pk), "stage": 0, "arm": "candidate", "version": 2}


@pytest.fixture
def candidate(transactional_db: None) -> tuple[Served, dict[str, Any]]:
    return in_rollout()


@pytest.fixture
def served(candidate: tuple[Served, dict[str, Any]]) -> Served:
    return candidate[0]


def test_it_stores_differing_tasks_by_route_pair(
    candidate: tuple[Served, dict[str, Any]], plane: Plane
) -> None:
    served, place = candidate
    cost = {"n": 3, "sum": 600, "sum_sq": 1.2e5, "sum_on_success": 400}
    part = {"tasks": 3, "successes": 2, "failures": 1, "ungraded": 0, "cost_nusd": cost}
    pair = "openai/gpt-4o>openai/gpt-4o-mini"
    row = known(served, plane, *(bucket(served.assignment, **place, differing=d) for d in ({pair: part}, {})))
    found = stored_sums.differing(stored(row))
    assert found is not None and (found.known_of, found.decided) == (236, None)
    assert found.pairs[pair].costs == GradedCosts(3, 2, 600, 1.2e5, 400, 600)
    known(served, plane, bucket(served.assignment, **place))  # from a router that does not report them
    assert stored_sums.differing(stored(ArmTotals.objects.get())) is None


def test_it_breaks_a_rollouts_arm_down_by_endpoint(
    candidate: tuple[Served, dict[str, Any]], plane: Plane
) -> None:
    served, place = candidate
    sent = [bucket(served.assignment, **place, endpoint=endpoint) for endpoint in ("/a", "/a", "/b")]
    slices = stored_sums.slices(stored(known(served, plane, *sent))["endpoints"])
    assert {name: one.tasks for name, one in slices.items()} == {"/a": 236, "/b": 118}
    assert slices["/b"].costs == GradedCosts(118, 109, 50_100_000, 2.4e13, 46_000_000, 51_234_000)


def test_it_stores_tasks_and_failures_by_cell(candidate: tuple[Served, dict[str, Any]], plane: Plane) -> None:
    served, place = candidate
    cells = {"workload": served.assignment.workload.name, "minute": MINUTE, **place}
    row = known(served, plane, cells=[{**cells, "tasks": {"7": 4, "1023": 2}, "failures": {"7": 1}}] * 2)
    assert row.cells == {"7": [8, 2], "1023": [4, 0]}


@pytest.mark.parametrize("list_", ["decided", "cells"])
@pytest.mark.parametrize(
    ("change", "field"), [({"version": 9}, "version"), ({"workload": "nobody"}, "workload"), ({"stage": 7}, "stage")]
)  # fmt: skip
def test_it_refuses_unknown_names(
    candidate: tuple[Served, dict[str, Any]], plane: Plane, list_: str, change: dict[str, Any], field: str
) -> None:
    served, place = candidate
    counted: dict[str, Any] = {"tasks": 3} if list_ == "decided" else {"tasks": {"1": 3}}
    good = {"workload": served.assignment.workload.name, "minute": MINUTE, **place, **counted}
    answer = plane.post(OUTCOMES, served.key, batch() | {list_: [good, {**good, **change}]})
    assert answer.status == 422
    [problem] = answer.json()["problems"]
    assert (problem["list"], problem["index"], problem["field"]) == (list_, 1, field)
    assert not ArmTotals.objects.exists()


def test_it_stores_single_outcomes_the_same_way(served: Served, plane: Plane) -> None:
    sent = [
        event(served.assignment),
        event(served.assignment, success=None),
        event(served.assignment, cost_nusd=None),
    ]
    assert plane.post("/router/v1/events", served.key, {"events": sent}).status == 202
    row = ArmTotals.objects.get()
    assert (row.tasks, row.ungraded, row.cost_n, costs(row)) == (3, 1, 2, (1, 1, 410_000, 410_000))
    assert stored_sums.arm_sums(stored(row)).decided is None


def _signal(assignment: Assignment, signal: str) -> None:
    Workload.objects.filter(pk=assignment.workload_id).update(success_signal=signal)


@pytest.mark.parametrize("signal", ["human_review", "satisfaction", "downstream"])
def test_router_grades_are_ignored_if_feedback_grades(
    candidate: tuple[Served, dict[str, Any]], plane: Plane, signal: str
) -> None:
    served, place = candidate
    _signal(served.assignment, signal)
    part = {"tasks": 3, "successes": 2, "failures": 1, "ungraded": 0}
    cells = {"workload": served.assignment.workload.name, "minute": MINUTE, **place, "tasks": {"7": 4}}
    sent = bucket(served.assignment, **place, differing={"a>b": part})
    row = known(served, plane, sent, cells=[cells])
    assert (row.tasks, row.successes, row.failures, row.ungraded) == (118, 0, 0, 118)
    assert (row.cost_n, row.cost_sum, row.cost_on_success, costs(row)) == (118, 51_234_000, 0, (0, 0, 0, 0))
    assert (row.groups, row.cells) == ({"7": [4, 0]}, {})
    assert row.differing == {"a>b": [3, 0, 0, 0, 0, 0, 0, 0, 0]}
    assert row.endpoints["/tickets/summary"][:3] == [118, 0, 0]
