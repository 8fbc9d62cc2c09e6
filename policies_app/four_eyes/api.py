"""/api/v1 for changes that need a second person."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import change_requests, four_eyes
from controlplane.access.models import ChangeRequest, Role
from controlplane.core.errors import InvalidInput
from controlplane.core.names import validate_text
from controlplane.web.api import PAGE, ApiView
from policies_app import actions
from policies_app.four_eyes.actions import (
    approve_change,
    change_request_for,
    change_requests_for,
    request_four_eyes_off,
)
from policies_app.selectors import environment_for
from policies_app.serializers import EnvironmentSerializer


class GivenApprovalSerializer(serializers.Serializer[Any]):
    label = serializers.CharField(help_text="who approved")  # type: ignore[assignment]  # a key, not the field's
    reason = serializers.CharField()
    at = serializers.DateTimeField()


class ChangeRequestSerializer(serializers.ModelSerializer[ChangeRequest]):
    subject = serializers.DictField(help_text="what is requested: a version and its digest, or a setting")
    approvals = GivenApprovalSerializer(many=True)
    approvals_needed = serializers.SerializerMethodField()
    binding = serializers.SerializerMethodField(
        help_text="identifies exactly what is approved; send it with the approval"
    )

    class Meta:
        model = ChangeRequest
        fields = [
            "id", "action", "environment", "workload", "subject", "reason", "requested_by", "state", "approvals",
            "approvals_needed", "binding", "created_at", "ended_at", "ended_by",
        ]  # fmt: skip
        read_only_fields = fields

    def get_approvals_needed(self, request: ChangeRequest) -> int:
        return four_eyes.approvals_needed(request.contributors)

    def get_binding(self, request: ChangeRequest) -> str:
        return change_requests.binding(request)


class DecisionInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=2_000, validators=[validate_text])


class ChangeApproveInput(DecisionInput):
    binding = serializers.CharField(max_length=64, help_text="the request's `binding` as you read it")


class FourEyesOffInput(DecisionInput):
    break_glass = serializers.BooleanField(
        default=False, help_text="do it now without approval; the audit log and the webhooks report it"
    )


class ChangeRequestsView(ApiView):
    """List changes that wait or waited for a second person."""

    queries = ("state", *PAGE)

    @extend_schema(
        parameters=[
            OpenApiParameter(
                "state", str, enum=ChangeRequest.State.values, description="only requests in this state"
            )
        ],
        responses=ChangeRequestSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        rows = change_requests_for(self.actor)
        if state := request.query_params.get("state"):
            if state not in ChangeRequest.State.values:
                raise InvalidInput(f"state must be one of {', '.join(ChangeRequest.State.values)}.")
            rows = rows.filter(state=state)
        return self.page(rows, ChangeRequestSerializer, "-id")


class ChangeRequestView(ApiView):
    """Return one change that waits or waited for a second person."""

    @extend_schema(responses=ChangeRequestSerializer)
    def get(self, request: Request, pk: UUID) -> Response:
        return Response(ChangeRequestSerializer(change_request_for(self.actor, pk)).data)


class ApproveChangeView(ApiView):
    """Approve exactly what `binding` names. The last approval needed applies the change at once."""

    @extend_schema(request=ChangeApproveInput, responses=ChangeRequestSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        found = change_request_for(self.actor, pk, role=Role.APPROVER)
        data = self.validated(ChangeApproveInput)
        approved = approve_change(
            found, actor=self.actor, reason=data["reason"], expected_binding=data["binding"]
        )
        return Response(ChangeRequestSerializer(approved).data)


class RejectChangeView(ApiView):
    """Reject a request. It ends, and nothing is changed."""

    @extend_schema(request=DecisionInput, responses=ChangeRequestSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        found = change_request_for(self.actor, pk, role=Role.APPROVER)
        reason = self.validated(DecisionInput)["reason"]
        rejected = change_requests.reject(found, actor=self.actor, reason=reason)
        return Response(ChangeRequestSerializer(rejected).data)


class WithdrawChangeView(ApiView):
    """Withdraw your own request."""

    @extend_schema(request=DecisionInput, responses=ChangeRequestSerializer)
    def post(self, request: Request, pk: UUID) -> Response:
        found = change_request_for(self.actor, pk)
        reason = self.validated(DecisionInput)["reason"]
        withdrawn = change_requests.withdraw(found, actor=self.actor, reason=reason)
        return Response(ChangeRequestSerializer(withdrawn).data)


class FourEyesOffView(ApiView):
    """Request that rollouts here no longer need a second person. Rollouts proposed earlier still do."""

    @extend_schema(
        request=FourEyesOffInput, responses={200: EnvironmentSerializer, 202: ChangeRequestSerializer}
    )
    def post(self, request: Request, environment: str) -> Response:
        found = environment_for(self.actor, environment, role=Role.ADMIN)
        data = self.validated(FourEyesOffInput)
        if not data["break_glass"]:
            asked = request_four_eyes_off(found, actor=self.actor, reason=data["reason"])
            return Response(ChangeRequestSerializer(asked).data, status=202)
        edited = actions.edit_environment(
            found, actor=self.actor, reason=data["reason"], break_glass=True, four_eyes=False
        )
        return self.versioned(EnvironmentSerializer(edited))
