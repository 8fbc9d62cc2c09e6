"""URLs for people (/console) and scripts (/api/v1). /router/v1 and the probes never reach Django:
`controlplane.server.gateway` answers them."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path
from django.views.generic import RedirectView

from controlplane.access import api as access
from controlplane.access import people_api as people
from controlplane.access.pages import urls as people_pages
from controlplane.access.sign_in import urls as sign_in
from controlplane.audit import api as audit
from controlplane.notifications import api as notifications
from controlplane.web.document import DocumentView

api_v1: list[URLPattern | URLResolver] = [
    *access.urlpatterns,
    *people.urlpatterns,
    *audit.urlpatterns,
    *notifications.urlpatterns,
    # Public: the document reveals no more than the source code.
    path("schema", DocumentView.as_view(authentication_classes=[]), name="schema"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("", RedirectView.as_view(pattern_name="console:index")),
    path("console/", include(sign_in.urlpatterns)),
    path("console/", include(people_pages.open_urlpatterns)),
    path("console/", admin.site.urls),
    path("api/v1/", include((api_v1, "api"))),
    path("api/v1/", include("policies_app.urls")),
    path("api/v1/", include("rollout_app.urls")),
]

handler400 = "controlplane.core.problems.bad_request"
handler403 = "controlplane.core.problems.permission_denied"
handler404 = "controlplane.core.problems.not_found"
handler500 = "controlplane.core.problems.server_error"
