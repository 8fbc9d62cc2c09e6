"""/api/v1 views of rollouts, plans and guardrails, except the moves (`moves_api`). Each write calls one action."""

from dataclasses import asdict
from typing import Any
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core.errors import InvalidInput, NotForAgents, NotFound
from controlplane.web import strict
from controlplane.web.api import PAGE, REASON, ApiView
from controlplane.web.openapi import if_match
from policies_app.selectors import environment_for, version_for, workload_for
from rollout_app import actions, serializers, shapes
from rollout_app.blast_radius.shadow_stage import shadow_stage_answer
from rollout_app.engine.shadow import shown_report
from rollout_app.engine.states import State
from rollout_app.evaluation import evaluations
from rollout_app.models import Plan
from rollout_app.moves_api import require_version
from rollout_app.outcomes import minute_totals
from rollout_app.selectors import plan_for, rollout_for, rollouts_for

ABSOLUTE = OpenApiParameter("absolute", bool)
METRIC = OpenApiParameter(
    "metric",
    str,
    OpenApiParameter.PATH,
    enum=[name for name, _ in shapes.METRICS],
    description="the guarded metric",
)


class PlansView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.PlanSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List the saved plans: the stages that a rollout can follow."""
        return self.page(Plan.objects.all(), serializers.PlanSerializer, "name")

    @extend_schema(request=serializers.PlanSerializer, responses={201: serializers.PlanSerializer})
    def post(self, request: Request) -> Response:
        """Save a plan under a name. All its stages are checked."""
        self.require(Role.EDITOR, permissions.ANYWHERE)
        data = self.validated(serializers.PlanSerializer)
        plan = actions.add_plan(actor=self.actor, **data)
        return self.versioned(serializers.PlanSerializer(plan), 201)


class PlanView(ApiView):
    delete_queries = ("reason",)

    @extend_schema(responses=serializers.PlanSerializer)
    def get(self, request: Request, plan: str) -> Response:
        """Read one saved plan, with the ETag that an edit needs."""
        return self.versioned(serializers.PlanSerializer(plan_for(plan)))

    @extend_schema(request=serializers.PlanEditInput, responses=serializers.PlanSerializer)
    def patch(self, request: Request, plan: str) -> Response:
        """Change a saved plan. Rollouts keep the stages that they were proposed with."""
        self.require(Role.EDITOR, "")
        expected = self.expected_version()
        data = self.validated(serializers.PlanEditInput)
        edited = actions.edit_plan(plan, actor=self.actor, expected=expected, **data)
        return self.versioned(serializers.PlanSerializer(edited))

    @extend_schema(parameters=[REASON], responses={204: None})
    def delete(self, request: Request, plan: str) -> Response:
        """Remove a saved plan. Rollouts keep the stages that they were proposed with."""
        self.require(Role.EDITOR, "")
        actions.remove_plan(
            plan, actor=self.actor, expected=self.expected_version(), reason=self.query_reason()
        )
        return Response(status=204)


class RolloutsView(ApiView):
    open_to_agents = True
    queries = ("environment", "workload", "state", *PAGE)

    @extend_schema(
        parameters=[
            OpenApiParameter(name, str, description="return only rollouts with this value")
            for name in ("environment", "workload", "state")
        ],
        responses=serializers.RolloutSerializer(many=True),
    )
    def get(self, request: Request) -> Response:
        """List the rollouts of the environments that you may see, newest first."""
        rows = rollouts_for(self.actor)
        for name, column in (("environment", "environment__name"), ("workload", "workload__name")):
            if value := request.query_params.get(name):
                rows = rows.filter(**{column: value})
        if state := request.query_params.get("state"):
            rows = rows.filter(state=_state(state))
        return self.page(rows, serializers.RolloutSerializer, "-id")

    @extend_schema(request=serializers.ProposeInput, responses={201: serializers.RolloutSerializer})
    def post(self, request: Request) -> Response:
        """Propose to move a workload from its served version to another one, following a plan."""
        data = self.validated(serializers.ProposeInput)
        if self.is_agent and data["scheduled_for"] is not None:
            raise NotForAgents(
                "An agent may propose a rollout, but only a person may schedule it. Leave out `scheduled_for`."
            )
        environment = environment_for(
            self.actor, data["environment"], role=Role.EDITOR, workload=data["workload"]
        )
        workload = workload_for(self.actor, data["workload"], edit=True)
        candidate = version_for(workload, data["candidate"])
        kept = {name: data[name] for name in ("reason", "scheduled_for", "draft")}
        plan = serializers.PlanChoice.chosen(data)
        rollout = actions.propose_rollout(
            environment, workload, candidate, plan=plan, actor=self.actor, **kept
        )
        return self.versioned(serializers.RolloutSerializer(rollout), 201)


def _state(value: str) -> State:
    try:
        return State(value)
    except ValueError:
        raise InvalidInput(f"There is no state {value!r}; use one of {', '.join(State)}.") from None


class RolloutDetailView(ApiView):
    @extend_schema(responses=serializers.RolloutSerializer)
    def get(self, request: Request, rollout: UUID) -> Response:
        """Read one rollout: its state, its stages, what holds it, and which actions are possible now (`can`)."""
        return self.versioned(serializers.RolloutSerializer(rollout_for(self.actor, rollout)))

    @extend_schema(request=serializers.AmendInput, responses=serializers.RolloutSerializer)
    def patch(self, request: Request, rollout: UUID) -> Response:
        """Amend a rollout that has not started: its plan or its time. Earlier approvals become void."""
        found = rollout_for(self.actor, rollout, role=Role.EDITOR)
        require_version(found, self.expected_version())
        data = self.validated(serializers.AmendInput)
        amended = actions.amend_rollout(
            found,
            actor=self.actor,
            reason=data["reason"],
            plan=serializers.PlanChoice.chosen(data),
            scheduled_for=data.get("scheduled_for", found.scheduled_for),
        )
        return self.versioned(serializers.RolloutSerializer(amended))


class TransitionsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.TransitionSerializer(many=True))
    def get(self, request: Request, rollout: UUID) -> Response:
        """List every move of a rollout in order, with its reason and actor."""
        rows = rollout_for(self.actor, rollout).transitions.all()
        return self.page(rows, serializers.TransitionSerializer, "sequence")


class ApprovalsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.ApprovalSerializer(many=True))
    def get(self, request: Request, rollout: UUID) -> Response:
        """List the approvals of a rollout, with the binding of each."""
        return self.page(rollout_for(self.actor, rollout).approvals.all(), serializers.ApprovalSerializer)


class JudgementView(ApiView):
    """The current verdict of each guardrail, with the sums that it was computed from."""

    @extend_schema(responses=shapes.JudgementShape)
    def get(self, request: Request, rollout: UUID) -> Response:
        return Response(evaluations.judged(rollout_for(self.actor, rollout)).as_dict())


class VerdictsView(ApiView):
    """The evaluations that changed a verdict or moved the rollout, newest first; `?evaluation=7` returns one."""

    queries = ("evaluation", "look", *PAGE)  # `look` is the old name

    @extend_schema(
        parameters=[OpenApiParameter("evaluation", int)], responses=serializers.VerdictSerializer(many=True)
    )
    def get(self, request: Request, rollout: UUID) -> Response:
        rows = rollout_for(self.actor, rollout).verdicts.all()
        for name in ("evaluation", "look"):
            if name in request.query_params:
                rows = rows.filter(evaluation=_whole_number(request, name, 0, 0, 2**31 - 1))
        return self.page(rows, serializers.VerdictSerializer)


class ShadowView(ApiView):
    """The shadow stage's results, by endpoint and rule.

    Agreement, model mix, cost including the second stage, latency, and cheap against strong.
    """

    @extend_schema(responses=OpenApiTypes.OBJECT)
    def get(self, request: Request, rollout: UUID) -> Response:
        found = rollout_for(self.actor, rollout)
        report = shown_report(*minute_totals.shadow_and_mirror(found))
        return Response(asdict(report) | shadow_stage_answer(found))


class GuardrailsView(ApiView):
    queries = PAGE

    @extend_schema(responses=serializers.GuardrailSerializer(many=True))
    def get(self, request: Request, workload: str) -> Response:
        """List a workload's own guardrails. A metric that is not listed has its default."""
        rows = workload_for(self.actor, workload).guardrails.all()
        return self.page(rows, serializers.GuardrailSerializer, "pk")


class GuardrailView(ApiView):
    """A workload's own margin and weight of one metric; with a `bound`, an absolute guardrail in addition."""

    queries = ("absolute",)
    delete_queries = ("absolute", "reason")

    @extend_schema(parameters=[METRIC, ABSOLUTE], responses=serializers.GuardrailSerializer)
    def get(self, request: Request, workload: str, metric: str) -> Response:
        """Return a workload's own guardrail on a metric, with the ETag for an edit. 404: it has its default."""
        found = workload_for(self.actor, workload)
        absolute = strict.boolean(request.query_params, "absolute")
        row = found.guardrails.filter(metric=metric, bound__isnull=not absolute).first()
        if row is None:
            raise NotFound(f"{found.name} has no guardrail of its own on {metric}.")
        return self.versioned(serializers.GuardrailSerializer(row))

    @extend_schema(
        parameters=[METRIC, if_match(required=False)],
        request=serializers.GuardrailInput,
        responses=serializers.GuardrailSerializer,
    )
    def put(self, request: Request, workload: str, metric: str) -> Response:
        """Set a workload's own margin and weight of one metric; with a `bound`, an absolute guardrail in addition.

        `If-Match` is required if it has one already.
        """
        found = workload_for(self.actor, workload, edit=True)
        expected = self.expected_version() if "If-Match" in request.headers else 0
        data = self.validated(serializers.GuardrailInput)
        row = actions.set_guardrail(found, metric, actor=self.actor, expected=expected, **data)
        return self.versioned(serializers.GuardrailSerializer(row))

    @extend_schema(parameters=[METRIC, ABSOLUTE, REASON], responses={204: None})
    def delete(self, request: Request, workload: str, metric: str) -> Response:
        """Restore the default guardrail of one metric; with `absolute=true`, remove the absolute one."""
        found = workload_for(self.actor, workload, edit=True)
        actions.remove_guardrail(
            found,
            metric,
            absolute=strict.boolean(request.query_params, "absolute"),
            actor=self.actor,
            expected=self.expected_version(),
            reason=self.query_reason(),
        )
        return Response(status=204)


def _whole_number(request: Request, name: str, default: int, low: int, high: int) -> int:
    value: Any = request.query_params.get(name, default)
    try:
        number = int(value)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise InvalidInput(f"{name} must be a whole number from {low} to {high}, not {str(value)[:40]!r}.")
    return number
