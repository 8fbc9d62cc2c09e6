"""/api/v1 views that move a rollout or approve it, one action each."""

from collections.abc import Callable
from typing import ClassVar
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access.models import Role
from controlplane.core.errors import StaleVersion
from controlplane.web.api import ApiView
from rollout_app import actions, serializers
from rollout_app.models import Rollout
from rollout_app.selectors import rollout_for


def require_version(rollout: Rollout, expected: int | None) -> None:
    if expected is not None and rollout.version != expected:
        raise StaleVersion(
            f"The rollout is at version {rollout.version} ({rollout.state}, stage {rollout.stage}), not "
            f"{expected}; read it again."
        )


class MoveView(ApiView):
    """Base of the views that move a rollout.

    `If-Match` is required, except for urgent moves that stop a candidate or take it out of traffic: in an emergency
    nobody should have to read first.
    """

    move: ClassVar[Callable[..., Rollout]]
    role: ClassVar[Role] = Role.OPERATOR
    urgent: ClassVar[bool] = False

    @extend_schema(request=serializers.ReasonInput, responses=serializers.RolloutSerializer)
    def post(self, request: Request, rollout: UUID) -> Response:
        found = rollout_for(self.actor, rollout, role=self.role)
        if not self.urgent or "If-Match" in request.headers:
            require_version(found, self.expected_version())
        data = self.validated(serializers.ReasonInput)
        moved = type(self).move(found, actor=self.actor, **data)
        return self.versioned(serializers.RolloutSerializer(moved))


class SubmitView(MoveView):
    """Submit a draft. It then waits for an approval or for its start."""

    move, role = actions.submit_rollout, Role.EDITOR


class RejectView(MoveView):
    """Reject a proposed rollout, which ends it."""

    move, role = actions.reject_rollout, Role.APPROVER


class WithdrawApprovalView(MoveView):
    """Withdraw your own approval of a rollout that has not started."""

    move, role = actions.withdraw_approval, Role.APPROVER


class CancelView(MoveView):
    """Cancel a rollout that has not started."""

    move, role = actions.cancel_rollout, Role.EDITOR


class StartView(MoveView):
    """Start the first stage. Routers receive it with their next poll."""

    move = actions.start_rollout


class BreakGlassView(MoveView):
    """Start the first stage without the required approval. For emergencies only; the audit log marks it clearly."""

    move = actions.break_glass_start


class AdvanceView(MoveView):
    """Enter the next stage now, without waiting for the evidence."""

    move = actions.advance_rollout


class CompleteView(MoveView):
    """Make the candidate the baseline now, before the last stage has reached its minimum time."""

    move = actions.complete_rollout


class PauseView(MoveView):
    """Stay at this stage. The candidate keeps its share, and the automatic rollback stays active."""

    move, urgent, open_to_agents = actions.pause_rollout, True, True


class ResumeView(MoveView):
    """Resume a paused rollout."""

    move = actions.resume_rollout


class RollBackView(MoveView):
    """Send all traffic back to the baseline at once. Needs no approval and no If-Match."""

    move, urgent, open_to_agents = actions.roll_back_rollout, True, True


class AbortView(MoveView):
    """Stop a running or paused rollout. All traffic goes back to the baseline at once. Needs no If-Match."""

    move, urgent = actions.abort_rollout, True


class RevertView(MoveView):
    """Return to the version that was served before a completed rollout. Creates a new rollout."""

    move, urgent = actions.revert_rollout, True


class ApproveView(ApiView):
    """Approve the start, or entering a stage. `binding` names what you saw: 409 if it has changed since."""

    @extend_schema(request=serializers.ApproveInput, responses=serializers.RolloutSerializer)
    def post(self, request: Request, rollout: UUID, stage: int | None = None) -> Response:
        found = rollout_for(self.actor, rollout, role=Role.APPROVER)
        require_version(found, self.expected_version())
        data = self.validated(serializers.ApproveInput)
        given = {"actor": self.actor, "reason": data["reason"], "expected_binding": data["binding"]}
        if stage is None:
            approved = actions.approve_rollout(found, **given)
        else:
            approved = actions.approve_stage(found, stage, **given)
        return self.versioned(serializers.RolloutSerializer(approved))
