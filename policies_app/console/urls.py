"""The addresses of these pages, under /console/."""

from django.urls import path

from policies_app.console import catalogue, fleet, serving, versions, workloads

urlpatterns = [
    path("workloads/", workloads.workloads, name="workloads"),
    path("workloads/<slug:name>/", workloads.workload_page, name="workload"),
    path("workloads/<slug:name>/versions/new/", versions.new_version, name="new_version"),
    path("workloads/<slug:name>/versions/check/", versions.check_version, name="check_version"),
    path("workloads/<slug:name>/versions/<int:number>/", versions.version_page, name="version"),
    path("workloads/<slug:name>/diff/", versions.diff, name="diff"),
    path("workloads/<slug:name>/<slug:environment>/serve/", serving.serve, name="serve"),
    path("workloads/<slug:name>/<slug:environment>/pin/", serving.pin, name="pin"),
    path("workloads/<slug:name>/<slug:environment>/unpin/", serving.unpin, name="unpin"),
    path("models/", catalogue.models, name="models"),
    path("models/import/", catalogue.import_models, name="import_models"),
    path("models/import/write/", catalogue.write_models, name="write_models"),
    path("fleet/", fleet.fleet_page, name="fleet"),
    path("fleet/<slug:name>/", fleet.fleet_page, name="fleet_of"),
]
