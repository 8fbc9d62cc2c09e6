"""URLs below /api/v1/."""

from django.urls import URLPattern, path
from drf_spectacular.utils import extend_schema, extend_schema_view

from controlplane.web.api import ApiView
from rollout_app import api, moves_api, rehearsal_api
from rollout_app.blast_radius import api as blast_radius
from rollout_app.evidence_report import api as evidence
from rollout_app.review import api as review

MOVES = {
    "submit": moves_api.SubmitView,
    "reject": moves_api.RejectView,
    "withdraw-approval": moves_api.WithdrawApprovalView,
    "cancel": moves_api.CancelView,
    "start": moves_api.StartView,
    "break-glass": moves_api.BreakGlassView,
    "advance": moves_api.AdvanceView,
    "complete": moves_api.CompleteView,
    "pause": moves_api.PauseView,
    "resume": moves_api.ResumeView,
    "roll-back": moves_api.RollBackView,
    "abort": moves_api.AbortView,
    "revert": moves_api.RevertView,
}


def _with_csv(route: str, view: type[ApiView], operation: str = "") -> tuple[URLPattern, URLPattern]:
    """Return the paths of a view as JSON and as `.csv`. `operation`: its OpenAPI name, if two URLs would share one."""
    plain, table = view, view
    if operation:
        plain, table = _named(view, operation), _named(view, f"{operation}_csv")
    return path(route, plain.as_view()), path(f"{route}.csv", table.as_view(), {"as_csv": True})


def _named(view: type[ApiView], operation: str) -> type[ApiView]:
    named = type(view.__name__, (view,), {"__doc__": view.__doc__})
    return extend_schema_view(get=extend_schema(operation_id=operation))(named)


urlpatterns = [
    path("plans", api.PlansView.as_view()),
    path("plans/<slug:plan>", api.PlanView.as_view()),
    path("rollouts", api.RolloutsView.as_view()),
    path("rollouts/<uuid:rollout>", api.RolloutDetailView.as_view()),
    path("rollouts/<uuid:rollout>/approve", moves_api.ApproveView.as_view()),
    path("rollouts/<uuid:rollout>/stages/<int:stage>/approve", moves_api.ApproveView.as_view()),
    *(path(f"rollouts/<uuid:rollout>/{name}", view.as_view()) for name, view in MOVES.items()),
    path("rollouts/<uuid:rollout>/transitions", api.TransitionsView.as_view()),
    path("rollouts/<uuid:rollout>/approvals", api.ApprovalsView.as_view()),
    path("rollouts/<uuid:rollout>/judgement", api.JudgementView.as_view()),
    path("rollouts/<uuid:rollout>/verdicts", api.VerdictsView.as_view()),
    path("rollouts/<uuid:rollout>/shadow", api.ShadowView.as_view()),
    path("rollouts/<uuid:rollout>/blast-radius", blast_radius.RolloutRadiusView.as_view()),
    path(
        "environments/<slug:environment>/assignments/<slug:workload>/blast-radius",
        blast_radius.CandidateRadiusView.as_view(),
    ),
    path("rollouts/<uuid:rollout>/report", evidence.ReportView.as_view()),
    path("rollouts/<uuid:rollout>/report.md", evidence.ReportView.as_view(), {"as_text": True}),
    path("rollouts/<uuid:rollout>/dry-run", rehearsal_api.DryRunView.as_view()),
    path("workloads/<slug:workload>/guardrails", api.GuardrailsView.as_view()),
    path("workloads/<slug:workload>/guardrails/<slug:metric>", api.GuardrailView.as_view()),
    path("workloads/<slug:workload>/backtest", rehearsal_api.BacktestView.as_view()),
    path("workloads/<slug:workload>/decide", rehearsal_api.DecideView.as_view()),
    *_with_csv("environments/<slug:environment>/review", review.EnvironmentReviewView, "environment_review"),
    *_with_csv("environments/<slug:environment>/spend", review.SpendView),
    *_with_csv("environments/<slug:environment>/review/<slug:workload>", review.WorkloadReviewView),
    *_with_csv("rollouts/<uuid:rollout>/review", review.RolloutReviewView),
]
