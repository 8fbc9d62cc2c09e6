"""Serializers of /api/v1 for policies. They only parse and validate; actions do the writing."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from controlplane.access.models import Team
from controlplane.core.names import validate_text
from controlplane.web.fields import ReasonField, ZonedDateTimeField
from pointsman.policy import json_schema
from policies_app.fleet.readback import read_back
from policies_app.models import PRICES, Assignment, Environment, Model, PolicyVersion, Workload

# The action reports a taken name as a 409. Checked here, two concurrent callers would both pass.
_NAME: dict[str, Any] = {"name": {"validators": []}}


@extend_schema_field({name: part for name, part in json_schema().items() if name != "$schema"})
class PolicyField(serializers.JSONField):
    """A policy document. The policy package validates it and reports all problems at once."""


class EnvironmentSerializer(serializers.ModelSerializer[Environment]):
    frozen_from = ZonedDateTimeField(
        required=False,
        allow_null=True,
        help_text="when a planned freeze begins; null: no freeze, or one that began at once",
    )
    frozen_until = ZonedDateTimeField(required=False, allow_null=True)
    reason = ReasonField()

    class Meta:
        model = Environment
        fields = [
            "name", "description", "epoch", "revision", "four_eyes", "poll_interval_ms", "frozen_from",
            "frozen_until", "freeze_reason", "version", "reason",
        ]  # fmt: skip
        read_only_fields = ["epoch", "revision", "version"]
        extra_kwargs = _NAME


class EnvironmentEditSerializer(EnvironmentSerializer):
    class Meta(EnvironmentSerializer.Meta):
        read_only_fields = [*EnvironmentSerializer.Meta.read_only_fields, "name"]


class WorkloadSerializer(serializers.ModelSerializer[Workload]):
    reason = ReasonField()
    owner = serializers.SlugRelatedField(slug_field="name", queryset=Team.objects.all(), help_text="a team")

    class Meta:
        model = Workload
        fields = [
            "name", "description", "task_type", "difficulty", "quality_bar", "latency_tolerance_ms",
            "retryable", "escalatable", "batchable", "owner", "unit", "success_signal", "outcome_lag_s",
            "mirror_budget_usd", "version", "created_at", "reason",
        ]  # fmt: skip
        read_only_fields = ["version", "created_at"]
        extra_kwargs = _NAME


class WorkloadEditSerializer(WorkloadSerializer):
    class Meta(WorkloadSerializer.Meta):
        read_only_fields = [*WorkloadSerializer.Meta.read_only_fields, "name"]


class ModelSerializer(serializers.ModelSerializer[Model]):
    reason = ReasonField()

    class Meta:
        model = Model
        fields = [
            "name", *(f"{price}_nusd_per_mtok" for price in PRICES), "price_source", "context_window",
            "retires_on", "quality", "enabled", "version", "reason",
        ]  # fmt: skip
        read_only_fields = ["version"]
        extra_kwargs = _NAME


class ModelEditSerializer(ModelSerializer):
    class Meta(ModelSerializer.Meta):
        read_only_fields = [*ModelSerializer.Meta.read_only_fields, "name"]


class VersionSerializer(serializers.ModelSerializer[PolicyVersion]):
    workload = serializers.CharField(source="workload.name", read_only=True)
    policy = PolicyField(source="document", read_only=True)

    class Meta:
        model = PolicyVersion
        fields = ["workload", "number", "digest", "note", "author_label", "created_at", "policy"]
        read_only_fields = fields


class VersionInput(serializers.Serializer[Any]):
    """A document: JSON in `policy`, or YAML or JSON text in `text` (then problems have line numbers)."""

    policy = PolicyField(required=False)
    text = serializers.CharField(required=False, trim_whitespace=False, max_length=65_536)
    note = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=400, validators=[validate_text]
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if ("policy" in attrs) == ("text" in attrs):
            raise serializers.ValidationError(
                "Give the document either as JSON in `policy` or as YAML or JSON text in `text`, not both."
            )
        return attrs


class PinSerializer(serializers.Serializer[Any]):
    model = serializers.CharField(help_text="a name under `models` of the served policy")
    reason = serializers.CharField()


class AssignmentSerializer(serializers.ModelSerializer[Assignment]):
    environment = serializers.CharField(source="environment.name")
    workload = serializers.CharField(source="workload.name")
    baseline = serializers.IntegerField(source="baseline.number")
    candidate = serializers.IntegerField(source="candidate.number", allow_null=True, default=None)
    pin = serializers.SerializerMethodField()

    class Meta:
        model = Assignment
        fields = [
            "environment", "workload", "baseline", "candidate", "rollout", "stage", "mode", "share_pcm",
            "mirror_pcm", "cost_cap_nusd", "pin", "revision", "changed_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(PinSerializer(allow_null=True))
    def get_pin(self, assignment: Assignment) -> dict[str, str] | None:
        if not assignment.pin_model:
            return None
        return {"model": assignment.pin_model, "reason": assignment.pin_reason}


class ReadbackSerializer(serializers.Serializer[Any]):
    """How many router processes have applied what is served. Rollouts do not wait for the `silent` ones among the
    `stragglers`."""

    revision = serializers.IntegerField()
    confirmed = serializers.IntegerField()
    of = serializers.IntegerField()
    stragglers = serializers.ListField(child=serializers.CharField())
    silent = serializers.ListField(child=serializers.CharField())


class AssignmentDetailSerializer(AssignmentSerializer):
    readback = serializers.SerializerMethodField()

    class Meta(AssignmentSerializer.Meta):
        fields = [*AssignmentSerializer.Meta.fields, "readback"]
        read_only_fields = fields

    @extend_schema_field(ReadbackSerializer)
    def get_readback(self, assignment: Assignment) -> dict[str, Any]:
        followed = read_back(assignment.environment, assignment.revision, changed_at=assignment.changed_at)
        return dict(ReadbackSerializer(followed).data)


class ServeInput(serializers.Serializer[Any]):
    version = serializers.IntegerField(min_value=1, max_value=2**31 - 1)
    reason = serializers.CharField(max_length=400, validators=[validate_text])
    break_glass = serializers.BooleanField(
        default=False,
        help_text="with four eyes: serve it now without approval; the audit log and the webhooks report it",
    )


class PinInput(serializers.Serializer[Any]):
    model = serializers.CharField(max_length=120, help_text="a name under `models` of the served policy")
    reason = serializers.CharField(max_length=400, validators=[validate_text])


class ReasonInput(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=400, validators=[validate_text])
