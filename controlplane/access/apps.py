from django.apps import AppConfig


class AccessConfig(AppConfig):
    name = "controlplane.access"

    def ready(self) -> None:
        from controlplane.access import audited
        from controlplane.web import openapi  # noqa: F401 — registered by being imported

        audited.register()
