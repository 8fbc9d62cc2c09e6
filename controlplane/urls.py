"""Where each kind of caller enters: /api/v1 for scripts, /console for people. /router/v1 never reaches Django:
`controlplane.gateway` answers it in front."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

urlpatterns: list[object] = [
    path("", RedirectView.as_view(pattern_name="console:index")),
    path("console/", admin.site.urls),
]
