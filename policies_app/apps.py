"""Connects the app to the audit log's verification and to Prometheus."""

from django.apps import AppConfig


class PoliciesConfig(AppConfig):
    name = "policies_app"

    def ready(self) -> None:
        from controlplane.access.actions import places
        from controlplane.core import figures
        from policies_app import audited
        from policies_app.fleet.figures import FleetFigures
        from policies_app.selectors import four_eyes_by_name, workloads_among
        from policies_app.snapshots.metrics import PublishedFigures

        figures.register(FleetFigures())
        figures.register(PublishedFigures())
        audited.register()
        places.register(four_eyes_by_name, workloads_among)
