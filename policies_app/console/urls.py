"""URLs of these pages, under /console/."""

from django.urls import path

from policies_app.console import (
    catalogue,
    environments,
    fleet,
    keys,
    model_settings,
    serving,
    versions,
    workload_settings,
    workloads,
)

urlpatterns = [
    path("workloads/", workloads.workloads, name="workloads"),
    path("new-workload/", workload_settings.new_workload, name="new_workload"),
    path("workloads/<slug:name>/edit/", workload_settings.edit_workload, name="edit_workload"),
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
    path("workloads/<slug:name>/<slug:environment>/stop/", serving.stop, name="stop"),
    path("environments/", environments.environments, name="environments"),
    path("new-environment/", environments.new_environment, name="new_environment"),
    path("environments/<slug:name>/edit/", environments.edit_environment, name="edit_environment"),
    path("environments/<slug:name>/freeze/", environments.freeze, name="freeze"),
    path("environments/<slug:name>/thaw/", environments.thaw, name="thaw"),
    path("new-model/", model_settings.new_model, name="new_model"),
    # A model's name contains a slash: provider/model.
    path("models/<path:name>/edit/", model_settings.edit_model, name="edit_model"),
    path("keys/", keys.keys, name="keys"),
    path("keys/new/", keys.new_key, name="new_key"),
    path("keys/<slug:key_id>/rotate/", keys.rotate_key, name="rotate_key"),
    path("keys/<slug:key_id>/revoke/", keys.revoke_key, name="revoke_key"),
    path("fleet/", fleet.fleet_page, name="fleet"),
    path("fleet/<slug:name>/", fleet.fleet_page, name="fleet_of"),
]
