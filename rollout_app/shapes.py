"""What /api/v1 takes and gives as JSON, for its document: stages, and what a judgement says. They check nothing.

Stages are checked by `engine.plans`, whole and with every problem at once.
"""

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from rollout_app.engine.evidence import SHARE_ALL
from rollout_app.engine.metrics import Metric
from rollout_app.engine.verdicts import VerdictResult

METRICS = [(metric.value, metric.spec.label) for metric in Metric]
VERDICTS = [(verdict.value, verdict.value) for verdict in VerdictResult]


@extend_schema_serializer(component_name="Stage")
class StageShape(serializers.Serializer[Any]):
    """One step of a plan, with what it must show before the next."""

    mode = serializers.ChoiceField(["shadow", "percentage", "full"], help_text="shadow first, full last")
    share_pcm = serializers.IntegerField(
        required=False, min_value=0, max_value=SHARE_ALL, help_text="of 100,000; grows from stage to stage"
    )
    min_minutes = serializers.FloatField(required=False, min_value=0, max_value=44_640)
    min_tasks = serializers.IntegerField(
        required=False, min_value=0, max_value=10**9, help_text="judged in this stage"
    )
    max_hours = serializers.FloatField(required=False, allow_null=True, min_value=0.01, max_value=8_760)
    on_timeout = serializers.ChoiceField(["hold", "roll_back"], required=False)
    approval = serializers.BooleanField(required=False, help_text="entering it takes a person's yes")
    mirror_pcm = serializers.IntegerField(
        required=False, min_value=0, max_value=SHARE_ALL, help_text="in shadow: tasks run by both policies"
    )
    skippable = serializers.BooleanField(
        required=False, help_text="passed over where the evidence allows more"
    )
    tolerance = serializers.FloatField(
        required=False, min_value=1, max_value=10, help_text="times the margins"
    )


@extend_schema_field(StageShape(many=True))
class StagesField(serializers.JSONField):
    """A plan's stages, 1 to 20 of them."""


class JudgedGuardrail(serializers.Serializer[Any]):
    """What the evidence says of one guardrail, with the sums to compute it again."""

    name = serializers.CharField()
    metric = serializers.ChoiceField(METRICS)
    result = serializers.ChoiceField(VERDICTS)
    n_candidate = serializers.FloatField()
    n_baseline = serializers.FloatField()
    estimate = serializers.FloatField(allow_null=True, help_text="harm counts up")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    log_e_harm = serializers.FloatField(help_text="natural logarithm of the evidence of harm")
    log_e_safe = serializers.FloatField(allow_null=True, help_text="… of being within the margin")
    margin = serializers.FloatField()
    stage_margin = serializers.FloatField(help_text="what must be excluded before the next stage")
    weight = serializers.FloatField()
    counted = serializers.BooleanField(help_text="its harm counts towards a rollback")
    gates = serializers.BooleanField(help_text="it must pass before an advance")
    needed_tasks = serializers.IntegerField(allow_null=True, help_text="until it passes; null: unknown")
    note = serializers.CharField(allow_blank=True, help_text="why it is not judged, where it is not")


class StageCounts(serializers.Serializer[Any]):
    """What was judged in one stage. Minutes are Unix minutes."""

    candidate_tasks = serializers.IntegerField()
    baseline_tasks = serializers.IntegerField()
    strata = serializers.IntegerField(help_text="windows")
    first_minute = serializers.IntegerField(allow_null=True)
    last_minute = serializers.IntegerField(allow_null=True)


@extend_schema_serializer(component_name="Judgement")
class JudgementShape(serializers.Serializer[Any]):
    """All guardrails at this moment. `log_e` is the evidence of harm: at ln 20 it rolls back."""

    verdicts = JudgedGuardrail(many=True)
    log_e = serializers.FloatField(allow_null=True, help_text="null: no evidence at all")
    srm_log_e = serializers.FloatField(
        help_text="evidence that the split of tasks is not the one that was asked for"
    )
    strata = serializers.DictField(child=StageCounts(), help_text="by the stage's number")
    missing = serializers.ListField(
        child=serializers.DictField(), help_text="shares in which the arms differ"
    )
    units = serializers.DictField(allow_null=True, help_text="of a workload whose unit is not the request")
