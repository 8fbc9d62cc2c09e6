"""Below /api/v1/."""

from django.urls import URLPattern, path

from controlplane.web.api import ApiView
from rollout_app import api
from rollout_app.review import api as review

_MOVES = {
    "submit": api.SubmitView,
    "reject": api.RejectView,
    "cancel": api.CancelView,
    "start": api.StartView,
    "break-glass": api.BreakGlassView,
    "advance": api.AdvanceView,
    "complete": api.CompleteView,
    "pause": api.PauseView,
    "resume": api.ResumeView,
    "roll-back": api.RollBackView,
    "abort": api.AbortView,
    "revert": api.RevertView,
}


def _with_csv(route: str, view: type[ApiView]) -> tuple[URLPattern, URLPattern]:
    """The same at `….csv`."""
    return path(route, view.as_view()), path(f"{route}.csv", view.as_view(), {"as_csv": True})


urlpatterns = [
    path("plans", api.PlansView.as_view()),
    path("plans/<slug:plan>", api.PlanView.as_view()),
    path("rollouts", api.RolloutsView.as_view()),
    path("rollouts/<uuid:rollout>", api.RolloutDetailView.as_view()),
    path("rollouts/<uuid:rollout>/approve", api.ApproveView.as_view()),
    path("rollouts/<uuid:rollout>/stages/<int:stage>/approve", api.ApproveView.as_view()),
    *(path(f"rollouts/<uuid:rollout>/{name}", view.as_view()) for name, view in _MOVES.items()),
    path("rollouts/<uuid:rollout>/transitions", api.TransitionsView.as_view()),
    path("rollouts/<uuid:rollout>/approvals", api.ApprovalsView.as_view()),
    path("rollouts/<uuid:rollout>/judgement", api.JudgementView.as_view()),
    path("rollouts/<uuid:rollout>/verdicts", api.VerdictsView.as_view()),
    path("rollouts/<uuid:rollout>/shadow", api.ShadowView.as_view()),
    path("rollouts/<uuid:rollout>/dry-run", api.DryRunView.as_view()),
    path("workloads/<slug:workload>/guardrails", api.GuardrailsView.as_view()),
    path("workloads/<slug:workload>/guardrails/<slug:metric>", api.GuardrailView.as_view()),
    *_with_csv("environments/<slug:environment>/review", review.EnvironmentReviewView),
    *_with_csv("environments/<slug:environment>/review/<slug:workload>", review.WorkloadReviewView),
    *_with_csv("rollouts/<uuid:rollout>/review", review.RolloutReviewView),
]
