"""Where each kind of caller enters: /api/v1 for scripts, /console for people. /router/v1 never reaches Django:
`controlplane.gateway` answers it in front."""

from django.urls import path

urlpatterns: list[object] = []
