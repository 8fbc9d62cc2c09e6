"""/api/v1 for what can be served (environments, workloads, models, versions) and what is served now (assignments).
Each write calls one action."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers as fields
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core.errors import PolicyRefused
from controlplane.web.api import PAGE, ApiView
from pointsman.errors import PolicyInvalid
from pointsman.policy import Locate, digest, parse
from policies_app import actions, serializers
from policies_app.catalogue.validation import problems_of, told
from policies_app.documents.differences import differences
from policies_app.four_eyes.actions import request_serving
from policies_app.four_eyes.api import ChangeRequestSerializer
from policies_app.models import Assignment, Model, Workload
from policies_app.selectors import (
    assignment_for,
    environment_for,
    environments_for,
    model_for,
    version_for,
    workload_for,
)

# --- environments ------------------------------------------------------------------------------------


class EnvironmentsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.EnvironmentSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the environments that you may see."""
        return self.page(environments_for(self.actor), serializers.EnvironmentSerializer, "name")

    @extend_schema(
        request=serializers.EnvironmentSerializer, responses={201: serializers.EnvironmentSerializer}
    )
    def post(self, request: Request) -> Response:
        """Register an environment: a place where routers live, with its own keys, rollouts and approval rules."""
        self.require(Role.ADMIN, "")
        data = self.validated(serializers.EnvironmentSerializer)
        environment = actions.register_environment(actor=self.actor, **data)
        return self.versioned(serializers.EnvironmentSerializer(environment), 201)


class EnvironmentView(ApiView):
    @extend_schema(responses=serializers.EnvironmentSerializer)
    def get(self, request: Request, environment: str) -> Response:
        """Return one environment, with the ETag for an edit."""
        return self.versioned(serializers.EnvironmentSerializer(environment_for(self.actor, environment)))

    @extend_schema(
        request=serializers.EnvironmentEditSerializer, responses=serializers.EnvironmentEditSerializer
    )
    def patch(self, request: Request, environment: str) -> Response:
        """Change an environment's rules: turn four eyes on, set the poll interval or a change freeze."""
        found = environment_for(self.actor, environment, role=Role.ADMIN)
        expected = self.expected_version()
        data = self.validated(serializers.EnvironmentEditSerializer, partial=True)
        edited = actions.edit_environment(found, expected=expected, actor=self.actor, **data)
        return self.versioned(serializers.EnvironmentEditSerializer(edited))


# --- workloads ---------------------------------------------------------------------------------------


class WorkloadsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.WorkloadSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the workloads: families of requests, each with an owner, a quality bar and its own policy."""
        rows = Workload.objects.select_related("owner")
        return self.page(rows, serializers.WorkloadSerializer, "name")

    @extend_schema(request=serializers.WorkloadSerializer, responses={201: serializers.WorkloadSerializer})
    def post(self, request: Request) -> Response:
        """Register a workload. It serves nothing until it has a version that an environment serves."""
        data = self.validated(serializers.WorkloadSerializer)
        permissions.require_workload_editor(self.actor, data["owner"], data["name"])
        workload = actions.register_workload(actor=self.actor, **data)
        return self.versioned(serializers.WorkloadSerializer(workload), 201)


class WorkloadView(ApiView):
    @extend_schema(responses=serializers.WorkloadSerializer)
    def get(self, request: Request, workload: str) -> Response:
        """Return one workload, with the ETag for an edit."""
        return self.versioned(serializers.WorkloadSerializer(workload_for(self.actor, workload)))

    @extend_schema(request=serializers.WorkloadEditSerializer, responses=serializers.WorkloadEditSerializer)
    def patch(self, request: Request, workload: str) -> Response:
        """Change a workload. Anything but its description requires the role editor wherever it is served."""
        found = workload_for(self.actor, workload, edit=True)
        expected = self.expected_version()
        data = self.validated(serializers.WorkloadEditSerializer, partial=True)
        if "owner" in data:  # the editor must also belong to the team that receives the workload
            permissions.require_workload_editor(self.actor, data["owner"], workload)
        edited = actions.edit_workload(found, expected=expected, actor=self.actor, **data)
        return self.versioned(serializers.WorkloadEditSerializer(edited))


# --- the catalogue -----------------------------------------------------------------------------------


class ModelsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.ModelSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the models of the catalogue, with their prices in nano-US-dollars per million tokens."""
        return self.page(Model.objects.all(), serializers.ModelSerializer, "name")

    @extend_schema(request=serializers.ModelSerializer, responses={201: serializers.ModelSerializer})
    def post(self, request: Request) -> Response:
        """Add a model to the catalogue, so that policies can name it."""
        self.require(Role.ADMIN, "")
        model = actions.add_model(actor=self.actor, **self.validated(serializers.ModelSerializer))
        return self.versioned(serializers.ModelSerializer(model), 201)


class ModelView(ApiView):
    @extend_schema(responses=serializers.ModelSerializer)
    def get(self, request: Request, model: str) -> Response:
        """Return one model of the catalogue, with the ETag for an edit."""
        return self.versioned(serializers.ModelSerializer(model_for(model)))

    @extend_schema(request=serializers.ModelEditSerializer, responses=serializers.ModelEditSerializer)
    def patch(self, request: Request, model: str) -> Response:
        """Change a model's prices, context window or retirement date. The history keeps every change."""
        self.require(Role.ADMIN, "")
        found, expected = model_for(model), self.expected_version()
        data = self.validated(serializers.ModelEditSerializer, partial=True)
        edited = actions.edit_model(found, expected=expected, actor=self.actor, **data)
        return self.versioned(serializers.ModelEditSerializer(edited))


# --- versions ----------------------------------------------------------------------------------------


def _document(data: dict[str, Any]) -> tuple[Any, Locate | None]:
    """Return the document of a `VersionInput` and a function that locates its parts. Raises `PolicyRefused`."""
    if "policy" in data:
        return data["policy"], None
    try:
        document = parse(data["text"])
    except PolicyInvalid as error:
        raise PolicyRefused(
            "The text cannot be read; nothing was saved.", [problem.as_dict() for problem in error.problems]
        ) from None
    return document.data, document.locate


class VersionsView(ApiView):
    open_to_agents = True
    queries = PAGE

    @extend_schema(responses=serializers.VersionSerializer(many=True))
    def get(self, request: Request, workload: str) -> Response:
        """List the versions of a workload's policy, newest first."""
        rows = workload_for(self.actor, workload).versions.select_related("workload")
        return self.page(rows, serializers.VersionSerializer, "-number")

    @extend_schema(request=serializers.VersionInput, responses={201: serializers.VersionSerializer})
    def post(self, request: Request, workload: str) -> Response:
        """Save a policy document as the workload's next version, after full validation. Routers get it through a
        rollout."""
        found = workload_for(self.actor, workload, edit=True)
        data = self.validated(serializers.VersionInput)
        document, locate = _document(data)
        version = actions.add_version(found, document, actor=self.actor, note=data["note"], locate=locate)
        where = f"{request.path}/{version.number}"
        return Response(serializers.VersionSerializer(version).data, status=201, headers={"Location": where})


class ValidationSerializer(fields.Serializer[Any]):
    """The result of `validate`. `digest` is null if the document is not valid."""

    valid = fields.BooleanField()
    digest = fields.CharField(allow_null=True)
    problems = fields.ListField(child=fields.DictField())


class ValidateView(ApiView):
    """Report every problem of a document at once. Nothing is saved."""

    open_to_agents = computes = True

    @extend_schema(request=serializers.VersionInput, responses=ValidationSerializer)
    def post(self, request: Request, workload: str) -> Response:
        """Find every problem of a policy document at once. Nothing is saved."""
        found = workload_for(self.actor, workload)
        document, locate = _document(self.validated(serializers.VersionInput))
        problems = problems_of(document, found, locate=locate)
        valid = all(problem.severity != "error" for problem in problems)
        return Response(
            {
                "valid": valid,
                "digest": digest(document) if valid else None,
                "problems": told(problems),
            }
        )


class VersionView(ApiView):
    @extend_schema(responses=serializers.VersionSerializer)
    def get(self, request: Request, workload: str, number: int) -> Response:
        """Return one version of a workload's policy, with its document and digest."""
        version = version_for(workload_for(self.actor, workload), number)
        return Response(serializers.VersionSerializer(version).data, headers={"ETag": f'"{version.digest}"'})


class DifferenceSerializer(fields.Serializer[Any]):
    path = fields.CharField()
    kind = fields.ChoiceField(choices=["added", "removed", "changed", "moved"])
    before = fields.JSONField(allow_null=True)
    after = fields.JSONField(allow_null=True)


class DifferencesSerializer(fields.Serializer[Any]):
    items = DifferenceSerializer(many=True)


class DiffView(ApiView):
    """List the changes between two versions by path, with rules matched by id."""

    @extend_schema(responses=DifferencesSerializer)
    def get(self, request: Request, workload: str, number: int, other: int) -> Response:
        """Compare two versions of a workload's policy by path, with rules matched by id."""
        found = workload_for(self.actor, workload)
        before, after = version_for(found, number), version_for(found, other)
        return Response({"items": [d.as_dict() for d in differences(before.document, after.document)]})


# --- assignments -------------------------------------------------------------------------------------


class AssignmentsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.AssignmentSerializer(many=True))
    def get(self, request: Request, environment: str) -> Response:
        """List what an environment serves now: for each workload the baseline, and the candidate with its share."""
        rows = Assignment.objects.filter(environment=environment_for(self.actor, environment))
        rows = rows.select_related("environment", "workload", "baseline", "candidate")
        return self.page(rows, serializers.AssignmentSerializer, "pk")


class AssignmentView(ApiView):
    @extend_schema(responses=serializers.AssignmentDetailSerializer)
    def get(self, request: Request, environment: str, workload: str) -> Response:
        """Return what an environment serves for one workload, and how many routers have applied it."""
        return Response(
            serializers.AssignmentDetailSerializer(assignment_for(self.actor, environment, workload)).data
        )


class ServeView(ApiView):
    """Serve a first version. Every later version requires a rollout.

    If the environment requires four eyes, this requests a second person's approval (202), unless `break_glass` is set.
    """

    @extend_schema(
        request=serializers.ServeInput,
        responses={201: serializers.AssignmentDetailSerializer, 202: ChangeRequestSerializer},
    )
    def post(self, request: Request, environment: str, workload: str) -> Response:
        place = environment_for(self.actor, environment, role=Role.OPERATOR, workload=workload)
        data = self.validated(serializers.ServeInput)
        version = version_for(workload_for(self.actor, workload), data["version"])
        if place.four_eyes and not data["break_glass"]:
            asked = request_serving(place, version, actor=self.actor, reason=data["reason"])
            return Response(ChangeRequestSerializer(asked).data, status=202)
        assignment = actions.serve_first(
            place, version, actor=self.actor, reason=data["reason"], break_glass=data["break_glass"]
        )
        return Response(serializers.AssignmentDetailSerializer(assignment).data, status=201)


class PinView(ApiView):
    """The emergency switch: one model for every request, at once, without approval."""

    @extend_schema(request=serializers.PinInput, responses=serializers.AssignmentDetailSerializer)
    def post(self, request: Request, environment: str, workload: str) -> Response:
        """Pull the emergency switch: one model for every request, at once, without approval."""
        assignment = assignment_for(self.actor, environment, workload, role=Role.OPERATOR)
        data = self.validated(serializers.PinInput)
        pinned = actions.pin(assignment, data["model"], actor=self.actor, reason=data["reason"])
        return Response(serializers.AssignmentDetailSerializer(pinned).data)


class UnpinView(ApiView):
    @extend_schema(request=serializers.ReasonInput, responses=serializers.AssignmentDetailSerializer)
    def post(self, request: Request, environment: str, workload: str) -> Response:
        """End a pin: the workload follows its policy again."""
        assignment = assignment_for(self.actor, environment, workload, role=Role.OPERATOR)
        reason = self.validated(serializers.ReasonInput)["reason"]
        return Response(
            serializers.AssignmentDetailSerializer(
                actions.unpin(assignment, actor=self.actor, reason=reason)
            ).data
        )


class StopView(ApiView):
    """Stop serving the workload in the environment."""

    @extend_schema(request=serializers.ReasonInput, responses={204: None})
    def post(self, request: Request, environment: str, workload: str) -> Response:
        """Stop serving the workload in this environment. Its routers fall back to their own default."""
        assignment = assignment_for(self.actor, environment, workload, role=Role.OPERATOR)
        reason = self.validated(serializers.ReasonInput)["reason"]
        actions.stop_serving(assignment, actor=self.actor, reason=reason)
        return Response(status=204)
