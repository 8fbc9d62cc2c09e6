"""Shapes of /api/v1 for its OpenAPI document: stages and judgements. They check nothing.

`engine.plans` checks stages, all at once and with every problem listed.
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
    """One step of a plan, with its conditions for the next step."""

    mode = serializers.ChoiceField(["shadow", "percentage", "full"], help_text="shadow first, full last")
    share_pcm = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=SHARE_ALL,
        help_text="out of 100,000; grows from stage to stage",
    )
    min_minutes = serializers.FloatField(required=False, min_value=0, max_value=44_640)
    min_tasks = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=10**9,
        help_text="candidate tasks to judge in this stage; in shadow: decisions",
    )
    max_hours = serializers.FloatField(required=False, allow_null=True, min_value=0.01, max_value=8_760)
    on_timeout = serializers.ChoiceField(["hold", "roll_back"], required=False)
    approval = serializers.BooleanField(required=False, help_text="a person must approve entering it")
    mirror_pcm = serializers.IntegerField(
        required=False,
        min_value=0,
        max_value=SHARE_ALL,
        help_text="in shadow: share of tasks that both policies run, out of 100,000",
    )
    skippable = serializers.BooleanField(
        required=False, help_text="skipped if the evidence allows a later stage"
    )
    tolerance = serializers.FloatField(
        required=False, min_value=1, max_value=10, help_text="factor on the margins"
    )


@extend_schema_field(StageShape(many=True))
class StagesField(serializers.JSONField):
    """A plan's stages, 1 to 20 of them."""


class JudgedGuardrail(serializers.Serializer[Any]):
    """The verdict on one guardrail, with its figures."""

    name = serializers.CharField()
    metric = serializers.ChoiceField(METRICS)
    result = serializers.ChoiceField(VERDICTS)
    n_candidate = serializers.FloatField()
    n_baseline = serializers.FloatField()
    estimate = serializers.FloatField(allow_null=True, help_text="larger means more harm")
    low = serializers.FloatField(allow_null=True)
    high = serializers.FloatField(allow_null=True)
    log_e_harm = serializers.FloatField(help_text="natural logarithm of the evidence of harm")
    log_e_safe = serializers.FloatField(
        allow_null=True, help_text="natural logarithm of the evidence of being within the margin"
    )
    margin = serializers.FloatField()
    stage_margin = serializers.FloatField(help_text="the harm to exclude before the next stage")
    weight = serializers.FloatField()
    counted = serializers.BooleanField(help_text="whether its harm counts towards a rollback")
    gates = serializers.BooleanField(help_text="whether it must pass before an advance")
    needed_tasks = serializers.IntegerField(
        allow_null=True, help_text="estimate of tasks until it passes; null: unknown"
    )
    note = serializers.CharField(allow_blank=True, help_text="why it is not judged; empty if it is")


class StageCounts(serializers.Serializer[Any]):
    """Task counts judged in one stage. Minutes are Unix minutes."""

    candidate_tasks = serializers.IntegerField()
    baseline_tasks = serializers.IntegerField()
    strata = serializers.IntegerField(help_text="windows")
    first_minute = serializers.IntegerField(allow_null=True)
    last_minute = serializers.IntegerField(allow_null=True)


@extend_schema_serializer(component_name="Judgement")
class JudgementShape(serializers.Serializer[Any]):
    """All guardrails now. `log_e` is the evidence of harm; the rollout rolls back at ln 20."""

    verdicts = JudgedGuardrail(many=True)
    log_e = serializers.FloatField(allow_null=True, help_text="null: no evidence yet")
    srm_log_e = serializers.FloatField(
        help_text="evidence that the tasks are not split between the arms as planned"
    )
    strata = serializers.DictField(child=StageCounts(), help_text="by stage number")
    missing = serializers.ListField(
        child=serializers.DictField(),
        help_text="shares of tasks with missing data, compared between the arms",
    )
    units = serializers.DictField(allow_null=True, help_text="for a workload whose unit is not the request")
