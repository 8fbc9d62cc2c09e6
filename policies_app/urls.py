"""URLs below /api/v1/."""

from django.urls import path

from policies_app import api
from policies_app.four_eyes import api as four_eyes

urlpatterns = [
    path("environments", api.EnvironmentsView.as_view()),
    path("environments/<slug:environment>", api.EnvironmentView.as_view()),
    path("environments/<slug:environment>/assignments", api.AssignmentsView.as_view()),
    path("environments/<slug:environment>/assignments/<slug:workload>", api.AssignmentView.as_view()),
    path("environments/<slug:environment>/assignments/<slug:workload>/serve", api.ServeView.as_view()),
    path("environments/<slug:environment>/assignments/<slug:workload>/pin", api.PinView.as_view()),
    path("environments/<slug:environment>/assignments/<slug:workload>/unpin", api.UnpinView.as_view()),
    path("environments/<slug:environment>/assignments/<slug:workload>/stop", api.StopView.as_view()),
    path("environments/<slug:environment>/four-eyes-off", four_eyes.FourEyesOffView.as_view()),
    path("change-requests", four_eyes.ChangeRequestsView.as_view()),
    path("change-requests/<uuid:pk>", four_eyes.ChangeRequestView.as_view()),
    path("change-requests/<uuid:pk>/approve", four_eyes.ApproveChangeView.as_view()),
    path("change-requests/<uuid:pk>/reject", four_eyes.RejectChangeView.as_view()),
    path("change-requests/<uuid:pk>/withdraw", four_eyes.WithdrawChangeView.as_view()),
    path("workloads", api.WorkloadsView.as_view()),
    path("workloads/<slug:workload>", api.WorkloadView.as_view()),
    path("workloads/<slug:workload>/versions", api.VersionsView.as_view()),
    path("workloads/<slug:workload>/versions/validate", api.ValidateView.as_view()),
    path("workloads/<slug:workload>/versions/<int:number>", api.VersionView.as_view()),
    path("workloads/<slug:workload>/versions/<int:number>/diff/<int:other>", api.DiffView.as_view()),
    path("models", api.ModelsView.as_view()),
    # A model's name contains a slash: provider/model.
    path("models/<path:model>", api.ModelView.as_view()),
]
