"""Something else than a control plane answers: what it did not commit is not counted as committed."""

from dataclasses import replace

import pytest

from pointsman.testing import FakeControlPlane, Reply, Request
from pointsman.testing.server import problem
from tests.client.policies import two_stage
from tests.client.watching import eventually

LOGIN = Reply(200, b"<!doctype html><p>Please log in", {"Content-Type": "text/html"})
BAD_REQUEST = Reply(400, b"<html><h1>400 Bad Request</h1></html>", {"Content-Type": "text/html"})
WRONG_HOST = problem(400, "wrong_host")


@pytest.mark.parametrize(
    "answer",
    [LOGIN, BAD_REQUEST, WRONG_HOST, Reply(204), Reply(302, headers={"Location": "https://x/login"})],
)
def test_outcomes_and_feedback_wait_until_they_are_committed(plane: FakeControlPlane, answer: Reply) -> None:
    """A login page before the network answers every request with 200."""

    def portal(request: Request, reply: Reply) -> Reply:
        return answer if request.path.endswith(("/outcomes", "/feedback")) else reply

    plane.fail(503, path="/outcomes")
    with plane.router() as router:
        decision = router.decide("summaries")
        router.record(decision, success=True)
        router.feedback(decision.decision_id, "downstream", success=True)
        plane.tamper = portal
        plane.fail(503, times=0, path="nothing")
        assert eventually(lambda: str(answer.status) in (router.status()["sending_error"] or ""))
        status = router.status()
        assert (status["outcomes_accepted"], status["outcomes_waiting"]) == (0, 1)
        assert status["feedback_waiting"] == 1
        plane.tamper = None
        plane.batches.clear()  # what the fake itself counted behind the portal
        plane.feedback.clear()
        assert eventually(lambda: router.status()["outcomes_accepted"] == 1)
        assert plane.wait_for(lambda: plane.feedback)
        assert plane.tasks("summaries") == 1


@pytest.mark.parametrize(
    "answer",
    [LOGIN, BAD_REQUEST, WRONG_HOST, Reply(302, headers={"Location": "https://x/login"}), Reply(407)],
)
def test_a_rejection_is_repeated_until_the_control_plane_has_it(
    plane: FakeControlPlane, answer: Reply
) -> None:
    behind = 0

    def portal(request: Request, reply: Reply) -> Reply:
        nonlocal behind
        if not request.path.endswith("/acks"):
            return reply
        behind += 1
        return answer if behind < 4 else replace(reply)

    plane.tamper = portal
    plane.serve("chat", two_stage(workload="chat", default="nobody"))
    with plane.router():
        assert plane.wait_for(lambda: behind >= 5), "applied and rejected, after three lost ones"
    assert any(ack["state"] == "rejected" for ack in plane.acks[3:])


@pytest.mark.parametrize(
    "answer", [Reply(422), problem(422, "invalid_input"), problem(400, "malformed_body")]
)
def test_what_the_control_plane_refused_for_good_is_dropped_and_logged(
    plane: FakeControlPlane, answer: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    plane.tamper = lambda request, reply: (
        answer if request.path.endswith(("/outcomes", "/feedback")) else reply
    )
    with plane.router() as router:
        decision = router.decide("summaries")
        router.record(decision, success=True)
        router.feedback(decision.decision_id, "downstream", success=True)
        assert eventually(lambda: router.status()["outcomes_refused"] == 1)
        assert eventually(lambda: router.status()["feedback_dropped"] == 1)
    assert sum("refused: HTTP 4" in line for line in caplog.messages) == 2


def test_the_log_says_why_a_report_was_refused(
    plane: FakeControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    why = {"list": "decided", "index": 0, "field": "differing", "message": "it cannot exceed tasks"}
    answer = problem(422, "invalid_input", detail="1 of the buckets is not valid.", problems=[why])
    plane.tamper = lambda request, reply: answer if request.path.endswith("/outcomes") else reply
    with plane.router() as router:
        router.record(router.decide("summaries"), success=True)
        assert eventually(lambda: router.status()["outcomes_refused"] == 1)
    said = (
        "HTTP 422 invalid_input. 1 of the buckets is not valid. decided[0].differing: it cannot exceed tasks"
    )
    assert any(line.endswith(said) for line in caplog.messages)
