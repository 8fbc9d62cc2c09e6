"""/api/v1 views that try versions and margins without traffic: backtests, single decisions, dry runs."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.core.errors import InvalidInput
from controlplane.web.api import ApiView
from policies_app.catalogue.usage import dollars_per_million
from policies_app.selectors import environment_for, workload_for
from rollout_app import serializers as inputs
from rollout_app.backtest import report
from rollout_app.backtest.run import Backtest
from rollout_app.backtest.sources import LOGS
from rollout_app.backtest.tasks import Task
from rollout_app.rehearsal import sampled, waiting
from rollout_app.rehearsal.dry_run import dry_run
from rollout_app.rehearsal.scenario import RECORDED
from rollout_app.selectors import rollout_for


class TriedInput(serializers.Serializer[Any]):
    """The versions to try, and a draft that is not a version yet."""

    versions = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**31 - 1),
        required=False,
        max_length=waiting.MOST_COMPARED,
    )
    draft = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=65_536,
        trim_whitespace=False,
        help_text="a policy as YAML or JSON",
    )


class DecideInput(TriedInput):
    request = serializers.DictField(
        required=False, help_text="the request's inputs: prompt_tokens, endpoint, attributes, …"
    )
    requests = serializers.ListField(
        child=serializers.DictField(),
        required=False,
        min_length=1,
        max_length=sampled.MOST_INPUTS,
        help_text="the inputs of several requests instead, such as `request` of each line of a router's task log",
    )
    sampled = serializers.CharField(
        required=False,
        max_length=64,
        help_text="an environment instead: the inputs that its routers sampled last, if they opted in",
    )


class TasksFileSerializer(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=200, help_text="the extension sets the format: .csv, .jsonl, …")
    text = serializers.CharField(max_length=waiting.MOST_BYTES, trim_whitespace=False)


class BacktestInput(TriedInput):
    recorded = serializers.ChoiceField(required=False, choices=sorted(RECORDED))
    file = TasksFileSerializer(required=False)
    mapping = serializers.CharField(required=False, max_length=65_536, trim_whitespace=False)
    log = serializers.ChoiceField(required=False, choices=LOGS)
    latency_unit = serializers.ChoiceField(
        required=False, choices=["ms", "s"], help_text="unit of Langfuse's latency"
    )
    grade = serializers.CharField(required=False, max_length=200)
    success_from = serializers.FloatField(required=False, min_value=0, max_value=1)
    sweep = serializers.CharField(required=False, max_length=200, help_text="PLACE:LOW:HIGH:STEPS")
    score = serializers.CharField(required=False, max_length=200)


class BacktestView(ApiView):
    """Compute what versions would have answered correctly and cost over recorded tasks. Nothing is stored."""

    most_bytes = waiting.MOST_BYTES
    open_to_agents = computes = True

    @extend_schema(request=BacktestInput, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, workload: str) -> Response:
        found = workload_for(self.actor, workload)
        data = self.validated(BacktestInput)
        if ("file" in data) == ("recorded" in data):
            raise InvalidInput(
                "Give either `file` or `recorded`"
                + (", not both." if "file" in data else "; both are missing.")
            )
        file = data.pop("file", {"name": "", "text": ""})
        documents = waiting.documents_of(found, data.pop("versions", []), data.pop("draft", ""))
        result = waiting.run(
            waiting.Asked(
                documents=documents,
                file_name=file["name"],
                content=file["text"].encode(),
                prices=dollars_per_million(),
                versions=waiting.versions_of(found, data.get("log", "")),
                **data,
            )
        )
        if isinstance(result, Backtest):
            return Response(report.as_document(result))
        return Response({"policies": {name: report.agreement_document(one) for name, one in result.items()}})


class DecideView(ApiView):
    """Decide one request with each version: model, rule, reason and missing inputs.

    With `requests` instead, or with an environment whose routers send samples as `sampled`, count how many of them
    each version sends to which model, and where the versions differ.
    """

    open_to_agents = computes = True

    @extend_schema(request=DecideInput, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, workload: str) -> Response:
        found = workload_for(self.actor, workload)
        data = self.validated(DecideInput)
        documents = waiting.documents_of(found, data.get("versions", []), data.get("draft", ""))
        if not documents:
            raise InvalidInput("Give `versions` or a `draft`.")
        if sum(name in data for name in ("request", "requests", "sampled")) != 1:
            raise InvalidInput("Give one of `request`, `requests` and `sampled`.")
        if "request" not in data:
            inputs = data.get("requests") or sampled.newest(
                environment_for(self.actor, data["sampled"]), found
            )
            tasks = (Task(request, {}) for request in inputs)
            return Response(sampled.as_document(sampled.compare(documents, tasks, dollars_per_million())))
        decided = waiting.decide(documents, data["request"], dollars_per_million())
        return Response({"decisions": [asdict(one) for one in decided]})


class DryRunView(ApiView):
    """Show what other margins would have done with this rollout's outcomes. Changes nothing."""

    open_to_agents = computes = True

    @extend_schema(request=inputs.DryRunInput, responses=OpenApiTypes.OBJECT)
    def post(self, request: Request, rollout: UUID) -> Response:
        found = rollout_for(self.actor, rollout)
        data = self.validated(inputs.DryRunInput)
        return Response(dry_run(found, data["guardrails"]))
