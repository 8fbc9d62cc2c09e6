"""Feedback of the workload's success signal grades its task, in the sums of the task's minute."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pointsman.reporting import consistency
from pointsman.token import DecisionToken
from policies_app.fleet.buffer import FleetBuffer
from policies_app.models import Workload
from rollout_app.models import ArmTotals, DeferredGroup, Feedback, OutcomeBucket
from rollout_app.outcomes import feedback, store
from rollout_app.outcomes.feedback import GradedWorkload
from rollout_app.outcomes.schemas import FeedbackItem
from rollout_app.outcomes.store import DeferredGroups, Submission
from tests.support.plane import Plane, Served
from tests.support.reports import NOW, batch, bucket

FEEDBACK, OUTCOMES = "/router/v1/feedback", "/router/v1/outcomes"


@pytest.fixture(autouse=True)
def graded_by_people(served: Served) -> None:
    Workload.objects.update(success_signal=Workload.SuccessSignal.HUMAN_REVIEW)


def decision(served: Served, number: int, **changes: Any) -> str:
    token = DecisionToken(
        environment=served.environment.name, workload=served.assignment.workload.name,
        rollout=None, stage=None, arm="baseline", version=1, endpoint="/tickets/summary", rule="default",
        model="small", at=int(NOW.timestamp()), nonce=f"n{number}",
    )  # fmt: skip
    return token._replace(**changes).encode()


def say(plane: Plane, served: Served, *items: dict[str, Any]) -> None:
    answer = plane.post(FEEDBACK, served.key, {"feedback": list(items)})
    assert (answer.status, answer.json()) == (202, {"accepted": len(items)})


def review(decision_id: str, success: bool | None, kind: str = "human_review") -> dict[str, Any]:
    return {"decision_id": decision_id, "kind": kind, "success": success}


def grades() -> tuple[int, int, int, int]:
    """Return the grades of the arm's minute and of its one route, which must agree."""
    found = {
        (row.tasks, row.successes, row.failures, row.ungraded)
        for row in (ArmTotals.objects.get(), OutcomeBucket.objects.get())
    }
    return found.pop() if len(found) == 1 else (-1, -1, -1, -1)


def test_it_moves_tasks_from_ungraded_to_success_and_failure(plane: Plane, served: Served) -> None:
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    assert grades() == (118, 0, 0, 118)
    say(plane, served, *(review(decision(served, number), number > 1) for number in range(10)))
    assert grades() == (118, 8, 2, 108)


def test_a_second_grade_of_one_decision_changes_nothing(plane: Plane, served: Served) -> None:
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    one = decision(served, 1)
    say(plane, served, review(one, True), review(one, False))
    say(plane, served, review(one, False))
    assert grades() == (118, 1, 0, 117)
    assert Feedback.objects.get().success is True


def test_the_first_of_two_requests_counts_also_in_one_commit(served: Served) -> None:
    token = DecisionToken.decode(decision(served, 1))
    workload = GradedWorkload(served.assignment.workload_id, "human_review")
    grade = [
        feedback.grade(
            served.environment.pk, FeedbackItem(token.encode(), "human_review", success), token, workload, None, NOW
        )
        for success in (True, False)
    ]  # fmt: skip
    store.count([Submission(served.environment.pk, {}, [one], 1) for one in grade])
    assert (grades(), Feedback.objects.get().success) == ((0, 1, 0, -1), True)


@pytest.mark.parametrize(
    "item", [{"kind": "satisfaction"}, {"kind": "downstream"}, {"success": None}], ids=["another", "third", "no grade"]
)  # fmt: skip
def test_other_feedback_is_stored_and_grades_nothing(
    plane: Plane, served: Served, item: dict[str, Any]
) -> None:
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    say(plane, served, review(decision(served, 1), True) | item)
    assert (grades(), Feedback.objects.count()) == ((118, 0, 0, 118), 1)


def test_feedback_grades_nothing_if_the_router_grades(plane: Plane, served: Served) -> None:
    Workload.objects.update(success_signal=Workload.SuccessSignal.ACCURACY_CHECK)
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    say(plane, served, review(decision(served, 1), False))
    assert grades() == (118, 109, 9, 0)


def test_a_grade_may_arrive_before_its_task_is_reported(plane: Plane, served: Served) -> None:
    say(plane, served, review(decision(served, 1), True))
    assert grades() == (0, 1, 0, -1)
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    assert grades() == (118, 1, 0, 117)


def test_a_grade_counts_in_the_minute_of_its_decision(plane: Plane, served: Served) -> None:
    at = NOW - timedelta(days=9, minutes=3)
    say(plane, served, review(decision(served, 1, at=int(at.timestamp())), True))
    assert ArmTotals.objects.get().minute == at.replace(second=0, microsecond=0)


def test_a_grade_of_a_minute_long_past_is_stored_but_not_counted(plane: Plane, served: Served) -> None:
    at = datetime.now(UTC) - timedelta(days=29)
    say(plane, served, review(decision(served, 1, at=int(at.timestamp())), True))
    assert (ArmTotals.objects.exists(), Feedback.objects.count()) == (False, 1)


def decided_in(served: Served, number: int, ahead: timedelta) -> str:
    return decision(served, number, at=int((datetime.now(UTC) + ahead).timestamp()))


def test_a_grade_of_a_task_ahead_of_the_clock_is_refused_for_now(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was accepted, graded nothing, and took the place of the grade for ever."""
    blamed: list[Any] = []
    monkeypatch.setattr(FleetBuffer, "reported_ahead", lambda *given: blamed.append(given))
    words = [review(decision(served, 1), True), review(decided_in(served, 2, timedelta(minutes=8)), True)]
    answer = plane.post(FEEDBACK, served.key, {"feedback": words}, pointsman_router="r-1")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "clock_ahead", "30")
    assert datetime.fromisoformat(answer.json()["server_time"])
    assert [(each["list"], each["index"]) for each in answer.json()["problems"]] == [("feedback", 1)]
    assert not Feedback.objects.exists()
    say(plane, served, words[0])
    assert grades() == (0, 1, 0, -1)
    assert blamed == [], "another router may have decided"


def test_a_grade_of_a_task_more_than_a_day_ahead_is_refused(plane: Plane, served: Served) -> None:
    """Anybody can make a token: one of next year must not keep a router's feedback until then."""
    words = [review(decided_in(served, n, timedelta(hours=h)), True) for n, h in enumerate((1, 25, 9_000))]
    answer = plane.post(FEEDBACK, served.key, {"feedback": words})
    problems = [(each["index"], each["field"]) for each in answer.json()["problems"]]
    assert (answer.status, problems) == (422, [(1, "decision_id"), (2, "decision_id")])


@pytest.mark.parametrize("change", [{"success": None}, {"kind": "satisfaction"}])
def test_other_feedback_on_a_task_ahead_of_the_clock_is_stored(
    plane: Plane, served: Served, change: dict[str, Any]
) -> None:
    say(plane, served, review(decided_in(served, 1, timedelta(minutes=8)), True) | change)
    assert Feedback.objects.count() == 1


@pytest.mark.parametrize(("second", "ahead"), [(59, False), (60, True)])
def test_a_grade_is_accepted_exactly_when_its_tasks_batch_is(
    served: Served, second: int, ahead: bool
) -> None:
    """The batch has only the minute, which may be accepted although the second of the decision is ahead."""
    now = NOW.replace(second=0, microsecond=0)
    at = int((now + timedelta(minutes=5, seconds=second)).timestamp())
    token = DecisionToken.decode(decision(served, 1, at=at))
    assert consistency.is_ahead(feedback.minute_of(token), now) is ahead
    workload = GradedWorkload(served.assignment.workload_id, "human_review")
    item = FeedbackItem(token.encode(), "human_review", True)
    assert bool(feedback.grade(served.environment.pk, item, token, workload, None, now).changes) is not ahead


@pytest.mark.parametrize(("days", "counted"), [(11, True), (13, False)])
def test_a_grade_of_a_day_that_may_be_pruned_is_not_counted(
    plane: Plane, served: Served, settings: Any, days: int, counted: bool
) -> None:
    """The sums of that day, which are kept for longer, would be made again from this grade alone."""
    settings.OUTCOME_RETENTION_DAYS = 14
    at = datetime.now(UTC) - timedelta(days=days)
    say(plane, served, review(decision(served, 1, at=int(at.timestamp())), True))
    assert (ArmTotals.objects.exists(), Feedback.objects.count()) == (counted, 1)


@pytest.mark.parametrize("by_whom", ["the process that took it", "another, after that was killed"])
def test_a_deferred_grade_is_counted_once(served: Served, by_whom: str) -> None:
    token = DecisionToken.decode(decision(served, 1))
    workload = GradedWorkload(served.assignment.workload_id, "human_review")
    item = FeedbackItem(token.encode(), "human_review", True)
    grade = feedback.grade(served.environment.pk, item, token, workload, None, NOW)
    one, deferred = Submission(served.environment.pk, {}, [grade], 1), DeferredGroups()
    assert store.defer([one, one], deferred).answers == [1, 1]
    assert (store.count([one]).answers, ArmTotals.objects.exists()) == ([1], False)
    if by_whom == "the process that took it":
        store.flush(deferred)
    else:
        store.flush_abandoned(NOW + timedelta(hours=1))
    assert (grades(), Feedback.objects.count(), DeferredGroup.objects.count()) == ((0, 1, 0, -1), 1, 0)


def test_it_takes_effect_when_the_signal_changes(plane: Plane, served: Served, monkeypatch: Any) -> None:
    plane.post(OUTCOMES, served.key, batch(bucket(served.assignment)))
    Workload.objects.update(success_signal=Workload.SuccessSignal.SATISFACTION)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    say(plane, served, review(decision(served, 1), True, "satisfaction"))
    assert grades() == (118, 1, 0, 117)
