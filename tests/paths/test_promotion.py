"""The path of a promotion: API → action → table → compare-and-swap → transition → assignment → revision → audit.

Anna proposes, Ben approves, Anna starts. Then outcomes arrive, and the engine does the rest.
"""

from typing import Any

from controlplane.access.models import Role
from policies_app.models import Revision
from rollout_app.models import Rollout
from tests.support.plane import PATIENCE_S, until
from tests.support.town import NAME, Town

PLAN = [
    {"mode": "shadow", "min_tasks": 500, "min_minutes": 0},
    {"mode": "percentage", "share_pcm": 50_000, "min_tasks": 500, "min_minutes": 0},
    {"mode": "full", "min_minutes": 0},
]


def test_a_candidate_goes_from_proposal_to_full(town: Town) -> None:
    candidate = town.candidate()
    anna, ben = town.person("anna", Role.EDITOR, Role.OPERATOR), town.person("ben", Role.APPROVER)
    with town.router() as router:
        assert router.wait_ready(PATIENCE_S)
        town.minute(router, 1_500, lambda decision: 0.97)  # the baseline is known

        # Four eyes: Ben's approval is bound to the candidate's digest, the baseline and the plan.
        proposal = {"environment": "production", "workload": NAME, "candidate": candidate.number}
        answer = anna.post(
            "rollouts", json=proposal | {"stages": PLAN, "reason": "long prompts fail too often"}
        )
        assert (answer.status_code, answer.json()["state"]) == (201, "awaiting_approval")
        rollout = Rollout.objects.get(pk=answer.json()["id"])
        own = anna.post(f"rollouts/{rollout.pk}/approve", json={"reason": "mine"}, headers=_as(answer))
        assert own.status_code == 403
        seen = ben.get(f"rollouts/{rollout.pk}")
        approval = {"reason": "it was compared offline", "binding": seen.json()["binding"]}
        answer = ben.post(f"rollouts/{rollout.pk}/approve", json=approval, headers=_as(seen))
        assert answer.json()["state"] == "scheduled"
        answer = anna.post(f"rollouts/{rollout.pk}/start", json={"reason": "now"}, headers=_as(answer))
        assert answer.json()["state"] == "running"

        # From here on no person acts: tasks are decided, outcomes arrive, the engine evaluates.
        def completed() -> bool:
            town.minute(router, 500, lambda decision: 0.97)
            rollout.refresh_from_db()
            return rollout.state == "completed"

        until(completed)
        until(lambda: router.decide(NAME).version == candidate.number)

    assert (town.assignment().baseline, town.assignment().candidate) == (candidate, None)
    _told_once(town, rollout)


def _told_once(town: Town, rollout: Rollout) -> None:
    """Each step is one transition, one audit entry and, if it changed what is served, one revision."""
    steps = list(rollout.transitions.all())
    assert [step.event for step in steps] == [
        "propose", "approve", "start", "advance", "advance", "complete",
    ]  # fmt: skip
    assert [step.sequence for step in steps] == [1, 2, 3, 4, 5, 6]
    people = ["key anna of anna", "key ben of ben", "key anna of anna"]
    assert [step.actor_label for step in steps[:3]] == people
    assert {step.actor_kind for step in steps[3:]} == {"system"}
    done = [entry for entry in town.entries(rollout) if entry.outcome == "done"]
    assert [entry.action for entry in done] == [f"rollout.{step.event}" for step in steps]
    assert [entry.reason for entry in done] == [step.reason for step in steps]
    served = [step.revision for step in steps if step.revision is not None]
    made = Revision.objects.filter(environment=town.environment).order_by("number")
    assert served == [2, 3, 4, 5]
    assert [(row.number, row.cause) for row in made] == [
        (1, "assignment.serve_first"), (2, "rollout.start"), (3, "rollout.advance"), (4, "rollout.advance"),
        (5, "rollout.complete"),
    ]  # fmt: skip
    assert town.audit_says() == "verified"


def _as(answer: Any) -> dict[str, str]:
    """Headers for an action on the rollout as it was read."""
    return {"If-Match": answer.headers["etag"]}
