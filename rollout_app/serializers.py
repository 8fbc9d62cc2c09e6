"""Serializers of /api/v1 for rollouts. They shape output and check input; actions do all writes."""

from datetime import datetime
from functools import cached_property
from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from controlplane.core import clock
from controlplane.core.names import validate_text
from controlplane.web.fields import ReasonField, ZonedDateTimeField
from rollout_app.actions import Surroundings, binding, refusals
from rollout_app.actions.approvals import number_needed
from rollout_app.models import Approval, GuardrailOverride, Plan, Rollout, Transition, VerdictRecord
from rollout_app.shapes import METRICS, StagesField


class PlanSerializer(serializers.ModelSerializer[Plan]):
    name = serializers.SlugField(max_length=64)  # the action refuses a name that is taken, with 409
    stages = StagesField(help_text="1 to 20 stages, all checked together")
    reason = ReasonField()

    class Meta:
        model = Plan
        fields = ["name", "description", "stages", "version", "reason"]
        read_only_fields = ["version"]


class PlanEditInput(serializers.Serializer[Any]):
    description = serializers.CharField(required=False, allow_blank=True, max_length=200)
    stages = StagesField(required=False)
    reason = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=2_000, validators=[validate_text]
    )


class RolloutSerializer(serializers.ModelSerializer[Rollout]):
    environment = serializers.CharField(source="environment.name")
    workload = serializers.CharField(source="workload.name")
    baseline = serializers.IntegerField(source="baseline.number")
    candidate = serializers.IntegerField(source="candidate.number")
    candidate_digest = serializers.CharField(source="candidate.digest")
    stages = StagesField(read_only=True)
    binding = serializers.SerializerMethodField(help_text="identifies what an approval of the start covers")
    stage_bindings = serializers.SerializerMethodField(
        help_text="by stage number, for stages that need an approval: identifies what the approval covers"
    )
    approvals_needed = serializers.SerializerMethodField(
        help_text="how many people must approve: 0, 1, or 2 if a key without a person contributed"
    )
    can = serializers.SerializerMethodField(help_text="the actions that are possible now")
    looked_at = serializers.DateTimeField(
        source="evaluated_at", read_only=True, help_text="the old name of `evaluated_at`"
    )

    class Meta:
        model = Rollout
        fields = [
            "id", "environment", "workload", "baseline", "candidate", "candidate_digest", "plan_name",
            "stages", "guardrails", "salt", "state", "stage", "version", "reason", "proposer_label",
            "scheduled_for",
            "created_at", "started_at", "stage_entered_at", "paused_at", "rolling_back_at", "ended_at",
            "hold_code", "hold_sentence", "outlook", "evaluated_at", "looked_at",
            "rollback_reason", "rollback_revision",
            "readback", "reference", "reverts", "binding", "stage_bindings", "four_eyes", "terms",
            "approvals_needed", "can",
        ]  # fmt: skip
        read_only_fields = fields

    def get_binding(self, rollout: Rollout) -> str:
        return binding(rollout)

    def get_stage_bindings(self, rollout: Rollout) -> dict[str, str]:
        asked = [number for number, stage in enumerate(rollout.stages) if stage.get("approval")]
        return {str(number): binding(rollout, number) for number in asked}

    def get_approvals_needed(self, rollout: Rollout) -> int:
        return number_needed(rollout)

    @cached_property
    def _now(self) -> datetime:
        return clock.now()  # read once for a whole list

    @cached_property
    def _known(self) -> Surroundings | None:
        """What the checks of a whole list need, read at once."""
        rollouts = getattr(self.parent, "instance", None)
        return Surroundings(rollouts) if isinstance(rollouts, list) else None

    def get_can(self, rollout: Rollout) -> list[str]:
        refused = refusals(rollout, self._now, self._known)
        return [str(event) for event, refusal in refused.items() if refusal is None]


class PlanChoice(serializers.Serializer[Any]):
    """A saved plan by name in `plan`, or custom `stages`."""

    plan = serializers.CharField(required=False, max_length=64)
    stages = StagesField(required=False)

    @staticmethod
    def chosen(attrs: dict[str, Any]) -> Any:
        return attrs["plan"] if "plan" in attrs else attrs.get("stages")


class ProposeInput(PlanChoice):
    environment = serializers.CharField(max_length=64)
    workload = serializers.CharField(max_length=120)
    candidate = serializers.IntegerField(min_value=1, max_value=2**31 - 1, help_text="the version's number")
    reason = serializers.CharField(max_length=2_000, validators=[validate_text])
    scheduled_for = ZonedDateTimeField(required=False, allow_null=True, default=None)
    draft = serializers.BooleanField(required=False, default=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("plan" in attrs) == ("stages" in attrs):
            raise serializers.ValidationError("Give either `plan` (a saved plan's name) or `stages`.")
        return attrs


class AmendInput(PlanChoice):
    reason = serializers.CharField(max_length=2_000, validators=[validate_text])
    scheduled_for = ZonedDateTimeField(
        required=False, allow_null=True, help_text="null: start by hand; omitted: unchanged"
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "plan" in attrs and "stages" in attrs:
            raise serializers.ValidationError(
                "Give `plan` or `stages`, not both; give neither to keep the plan."
            )
        return attrs


@extend_schema_serializer(component_name="RolloutReason")
class ReasonInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=2_000, validators=[validate_text])


@extend_schema_serializer(component_name="RolloutApproveInput")
class ApproveInput(ReasonInput):
    binding = serializers.CharField(
        max_length=64,
        help_text="what you approve: the rollout's `binding`, or the stage's entry in `stage_bindings`",
    )


class TransitionSerializer(serializers.ModelSerializer[Transition]):
    class Meta:
        model = Transition
        fields = [
            "sequence", "event", "before_state", "before_stage", "after_state", "after_stage", "reason",
            "actor_kind", "actor_label", "revision", "at",
        ]  # fmt: skip
        read_only_fields = fields


class ApprovalSerializer(serializers.ModelSerializer[Approval]):
    withdrawn_at = serializers.DateTimeField(
        read_only=True, allow_null=True, help_text="when the approver withdrew it; null: it was not withdrawn"
    )
    binding = serializers.CharField(
        read_only=True, help_text="what it covers; it counts only while the rollout has the same binding"
    )

    class Meta:
        model = Approval
        fields = ["stage", "binding", "approver_label", "reason", "at", "withdrawn_at"]
        read_only_fields = fields


class VerdictSerializer(serializers.ModelSerializer[VerdictRecord]):
    # `data` is stored as text and returned as JSON.
    look = serializers.IntegerField(
        source="evaluation", read_only=True, help_text="the old name of `evaluation`"
    )
    data = serializers.JSONField(read_only=True)  # type: ignore[assignment]

    class Meta:
        model = VerdictRecord
        fields = ["evaluation", "look", "stage", "guardrail", "verdict", "data", "at"]
        read_only_fields = fields


class GuardrailSerializer(serializers.ModelSerializer[GuardrailOverride]):
    metric = serializers.ChoiceField(METRICS, read_only=True)

    class Meta:
        model = GuardrailOverride
        fields = ["metric", "enabled", "margin", "weight", "bound", "version"]
        read_only_fields = ["metric", "version"]


class GuardrailInput(serializers.Serializer[Any]):
    enabled = serializers.BooleanField(required=False, default=True)
    margin = serializers.FloatField(required=False, allow_null=True, default=None)
    weight = serializers.FloatField(required=False, allow_null=True, default=None)
    bound = serializers.FloatField(required=False, allow_null=True, default=None)
    reason = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=2_000, validators=[validate_text]
    )


class DryRunGuardrail(serializers.Serializer[Any]):
    metric = serializers.ChoiceField(METRICS)
    enabled = serializers.BooleanField(required=False, default=True)
    margin = serializers.FloatField(required=False, allow_null=True, default=None)
    weight = serializers.FloatField(required=False, allow_null=True, default=None)
    bound = serializers.FloatField(required=False, allow_null=True, default=None)


class DryRunInput(serializers.Serializer[Any]):
    guardrails = DryRunGuardrail(many=True, required=False, default=list, max_length=32)  # type: ignore[call-arg]
