"""The reviews through the API: of a workload, an owner, an environment, a rollout; as JSON and CSV."""

import csv
import io
from datetime import timedelta
from typing import Any

import pytest

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app import actions
from policies_app.models import Assignment, Environment, Workload
from rollout_app.models import Rollout
from rollout_app.review import rollups
from tests.support import builders, places
from tests.support.outcomes import outcome
from tests.support.people import logged_in

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def two(db: None) -> tuple[Environment, Workload, Workload]:
    """The workloads of two teams in one environment, with outcomes of the last two weeks and of a day before them."""
    environment, now = builders.environment(), clock.now()
    workloads = [builders.workload(owner=builders.team(name)) for name in ("support", "search")]
    for number, workload in enumerate(workloads):
        builders.served(environment, workload)
        outcome(environment, workload, now - 20 * DAY, tasks=1)
        outcome(environment, workload, now - 2 * DAY, cost=1_000, endpoint="/a", model="small")
        outcome(environment, workload, now - 2 * DAY, cost=3_000 + number, endpoint="/b", model="large")
        outcome(environment, workload, now - 9 * DAY, cost=3_000, endpoint="/a", model="large")
        outcome(environment, workload, now - 9 * DAY, cost=3_000, endpoint="/b", model="large")
    rollups.refresh()
    return environment, workloads[0], workloads[1]


def get(path: str, **query: Any) -> Any:
    return logged_in("viewer", "viewer").get(f"/api/v1/{path}", query)


def test_the_parts_of_an_environment_add_up(two: tuple[Environment, Workload, Workload]) -> None:
    environment, support, search = two
    told = get(f"environments/{environment.name}/review").json()
    for level in ("by_owner", "by_workload", "by_endpoint"):
        for side in ("now", "before"):
            for figure in ("tasks", "cost_nusd"):
                assert sum(row[side][figure] for row in told[level]) == told[side][figure]
        for effect in ("total_nusd", "volume_nusd", "mix_nusd", "coverage_nusd", "behaviour_nusd"):
            assert sum(row["effects"][effect] for row in told[level]) == told["effects"][effect]
    assert told["effects"]["total_nusd"] == told["now"]["cost_nusd"] - told["before"]["cost_nusd"]
    assert {row["owner"] for row in told["by_owner"]} == {"support", "search"}
    assert [row["workload"] for row in told["by_workload"]] != []
    assert told["as_of"] is not None


def test_the_review_of_an_owner_has_only_their_workloads(two: tuple[Environment, Workload, Workload]) -> None:
    environment, support, _ = two
    told = get(f"environments/{environment.name}/review", owner="support").json()
    assert [row["workload"] for row in told["by_workload"]] == [support.name]
    assert told["now"]["tasks"] == 200
    assert get(f"environments/{environment.name}/review", owner="nobody").status_code == 404


def test_the_review_of_a_workload_shows_what_changed(two: tuple[Environment, Workload, Workload]) -> None:
    environment, support, _ = two
    told = get(f"environments/{environment.name}/review/{support.name}").json()
    first = told["what_changed"][0]
    assert first["endpoint"] == "/a"
    assert first["effects"] == {
        "total_nusd": -200_000,
        "volume_nusd": 0,
        "mix_nusd": 0,
        "coverage_nusd": 0,
        "behaviour_nusd": -200_000,
    }
    assert "moved 100" in first["sentence"] and "to small" in first["sentence"]
    assert told["changes"]["cost_per_task"]["estimate"] == pytest.approx(4_000 / 6_000 - 1)
    assert told["latency_ms"]["now"]["/a"]["p50"] == pytest.approx(75, abs=3)
    assert sum(row["effects"]["total_nusd"] for row in told["what_changed"]) == told["effects"]["total_nusd"]


def test_a_missing_figure_is_null(db: None) -> None:
    """A7: the period before cost nothing; and a review without any outcome."""
    environment, workload, now = builders.environment(), builders.workload(), clock.now()
    builders.served(environment, workload)
    path = f"environments/{environment.name}/review/{workload.name}"
    assert get(path).json()["diagnosis"]["code"] == "unknown"
    outcome(environment, workload, now - 9 * DAY, tasks=500, cost=0)
    outcome(environment, workload, now - 2 * DAY, tasks=500, cost=1_000, success=0.95)
    told = get(path).json()
    assert told["changes"]["cost_per_success"] is None
    assert told["diagnosis"]["code"] == "dearer"
    assert get(f"environments/{environment.name}/review").json()["before"]["cost_per_success_nusd"] is None


@pytest.mark.parametrize("days", ["0", "91", "-1", "x", "1.5", "", "٣"])
def test_it_refuses_an_invalid_length(two: tuple[Environment, Workload, Workload], days: str) -> None:
    environment, support, _ = two
    for path in (
        f"environments/{environment.name}/review",
        f"environments/{environment.name}/review/{support.name}",
    ):
        assert get(path, days=days).status_code == 422


def table(path: str) -> list[dict[str, str]]:
    response = get(path)
    assert response["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(io.StringIO(response.content.decode())))


def test_the_csv_has_the_same_figures(two: tuple[Environment, Workload, Workload]) -> None:
    environment, support, _ = two
    told = get(f"environments/{environment.name}/review").json()
    rows = table(f"environments/{environment.name}/review.csv")
    assert rows[0]["level"] == "total"
    assert int(rows[0]["now_tasks"]) == told["now"]["tasks"]
    levels = ("owner", "workload", "endpoint", "time")
    told_at = {level: [row for row in rows if row["level"] == level] for level in levels}
    assert all(len(told_at[level]) == len(told[f"by_{level}"]) for level in levels)
    assert [row["spend_nusd"] for row in told_at["time"]] == [str(p["spend_nusd"]) for p in told["by_time"]]
    rows = table(f"environments/{environment.name}/review/{support.name}.csv")
    parts = {"total", "endpoint", "model", "arm", "version", "rule"}
    assert {row["level"] for row in rows} == parts | {"change", "latency", "what_changed", "diagnosis"}


def test_the_csv_contains_no_formulas(db: None) -> None:
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    outcome(environment, workload, clock.now() - DAY, endpoint='=HYPERLINK("http://x")')
    rows = table(f"environments/{environment.name}/review/{workload.name}.csv")
    assert any(row["endpoint"].startswith("'=") for row in rows)
    assert not any(row["endpoint"].startswith("=") for row in rows)


def served_both(rollout: Rollout, *, minutes: int, ours: int, cost: int) -> None:
    """Write outcomes of both arms in the first minutes of the rollout."""
    assert rollout.started_at is not None
    for minute in range(minutes):
        at = rollout.started_at.replace(second=0, microsecond=0) + minute * MINUTE
        for arm, tasks, price, version in (("candidate", ours, cost, 2), ("baseline", 200, 1_000, 1)):
            outcome(
                rollout.environment, rollout.workload, at, tasks=tasks, cost=price, arm=arm, version=version,
                rollout=str(rollout.pk), stage=0, success=0.95,
            )  # fmt: skip


def test_the_review_of_a_rollout_compares_its_arms(db: None) -> None:
    rollout = places.started(plan=[{"mode": "percentage", "share_pcm": 50_000}, {"mode": "full"}])
    Rollout.objects.filter(pk=rollout.pk).update(started_at=clock.now() - 10 * MINUTE)
    rollout.refresh_from_db()
    served_both(rollout, minutes=8, ours=200, cost=600)
    told = get(f"rollouts/{rollout.pk}/review").json()
    assert told["candidate"]["tasks"] == told["baseline"]["tasks"] == 1_600
    assert told["changes"]["cost_per_success"]["estimate"] == pytest.approx(-0.4)
    assert told["diagnosis"]["code"] == "healthy"
    assert told["saved_nusd"]["estimate"] == pytest.approx(1_600 * 400)
    assert told["workload_before"]["tasks"] == 0 and told["workload_after"] is None
    rows = table(f"rollouts/{rollout.pk}/review.csv")
    assert len([row for row in rows if row["level"] in ("total", "endpoint", "model", "rule")]) == 4
    changes = {row["figure"]: row for row in rows if row["level"] == "change"}
    for figure, change in {**told["changes"], "saved_nusd": told["saved_nusd"]}.items():
        if isinstance(change, dict):
            assert [changes[figure][name] for name in change] == [str(value) for value in change.values()]
    assert [row["sentence"] for row in rows if row["level"] == "diagnosis"] == [told["diagnosis"]["sentence"]]


def test_a_price_that_moves_in_both_arms_is_no_change_of_an_endpoint(db: None) -> None:
    """Regression: the candidate has most of its tasks late, and the baseline early, so a rise of costs in both arms
    looked like a rise by the candidate."""
    stages = [{"mode": "percentage", "share_pcm": pcm} for pcm in (5_000, 95_000)]
    rollout = places.started(plan=[*stages, {"mode": "full"}])
    at = clock.now().replace(second=0, microsecond=0) - 10 * MINUTE
    Rollout.objects.filter(pk=rollout.pk).update(started_at=at)
    arms = (("candidate", (50, 950, 500), 2), ("baseline", (950, 50, 0), 1))
    for arm, tasks, version in arms:
        for stage, (n, cost) in enumerate(zip(tasks, (1_000, 2_000, 2_000), strict=True)):
            if n:
                fields: dict[str, Any] = {"arm": arm, "version": version, "rollout": str(rollout.pk)}
                place = rollout.environment, rollout.workload, at + stage * MINUTE
                outcome(*place, tasks=n, cost=cost, stage=stage, **fields)
    (row,) = get(f"rollouts/{rollout.pk}/review").json()["by_endpoint"]
    assert (row["now"]["tasks"], row["before"]["tasks"]) == (1_500, 1_000)
    assert row["effects"]["behaviour_nusd"] == 0


def test_a_rollout_that_has_not_started_has_no_review(db: None) -> None:
    rollout = places.proposed()
    assert get(f"rollouts/{rollout.pk}/review").status_code == 409


def test_a_completed_rollout_is_followed_afterwards(db: None) -> None:
    rollout = places.completed()
    ended = clock.now() - DAY
    Rollout.objects.filter(pk=rollout.pk).update(started_at=ended - 10 * MINUTE, ended_at=ended)
    outcome(rollout.environment, rollout.workload, ended + 60 * MINUTE, version=rollout.candidate.number)
    assert get(f"rollouts/{rollout.pk}/review").json()["workload_after"]["tasks"] == 100


@pytest.mark.parametrize(
    "path", ["environments/{e}/review", "environments/{e}/review/{w}", "rollouts/{r}/review"]
)
def test_it_requires_a_role_in_that_environment(db: None, path: str) -> None:
    rollout = places.started()
    asked = path.format(e=rollout.environment.name, w=rollout.workload.name, r=rollout.pk)
    assert logged_in("stranger", "admin", environment="elsewhere").get(f"/api/v1/{asked}").status_code == 404


def test_the_interval_of_an_environment_uses_only_sums_with_squares(
    two: tuple[Environment, Workload, Workload],
) -> None:
    """Running sums are read without squares; an interval from them would look right and be wrong."""
    environment, support, _ = two
    for place in (environment.name, f"{environment.name}/review/{support.name}"):
        path = f"environments/{place}" if "/review/" in place else f"environments/{place}/review"
        now = get(path).json()["now"]
        low, high = now["cost_per_success_low_nusd"], now["cost_per_success_high_nusd"]
        assert low < now["cost_per_success_nusd"] < high


def test_the_review_of_a_stopped_workload_shows_its_figures(
    two: tuple[Environment, Workload, Workload],
) -> None:
    """The environment's review lists it and links to it, and this was a 409."""
    environment, workload, _ = two
    assignment = Assignment.objects.get(environment=environment, workload=workload)
    actions.stop_serving(assignment, actor=SYSTEM, reason="moved away")
    answer = get(f"environments/{environment.name}/review/{workload.name}")
    assert answer.status_code == 200
    body = answer.json()
    assert body["now"]["tasks"] > 0 and len(body["by_endpoint"]) == 2
    assert body["diagnosis"]["code"] == "not_served"
    assert "Nothing is served for this workload now" in body["diagnosis"]["sentence"]
    assert get(f"environments/{environment.name}/review/{workload.name}.csv").status_code == 200
    page = logged_in("viewer").get(f"/console/review/{environment.name}/{workload.name}/")
    assert page.status_code == 200
    assert "Nothing is served for this workload now" in page.content.decode()
