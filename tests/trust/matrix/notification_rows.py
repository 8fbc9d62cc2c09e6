"""Receivers, their deliveries, and break-glass that needs a review: rows of the API and of the pages."""

# One row per line.

from controlplane.notifications.models import BreakGlass
from tests.trust.matrix.needs import ANY, WHY, Asked, every, here, page, row

HOOK = {"name": "new", "kind": "webhook", "address": "https://hooks.example.org/"} | WHY
FORM = {"name": "new", "address": "https://hooks.example.org/", "enabled": "on"} | WHY
RECEIVERS, ADMIN = "notifications/receivers", every("admin")
ONE, DELIVERY = f"{RECEIVERS}/<uuid:pk>", "notifications/deliveries/<uuid:pk>"


def _one(path: str = "", body: object = None, at: str = RECEIVERS) -> Asked:
    return lambda w: (f"{at}/{w.dead.receiver_id}{path}", body)


def _delivery(path: str = "", body: object = None) -> Asked:
    return lambda w: (f"notifications/deliveries/{w.dead.pk}{path}", body)


def _opened(path: str, body: object = None) -> Asked:
    return lambda w: (f"break-glass/{BreakGlass.objects.filter(workload='w-plain').first().pk}{path}", body)  # type: ignore[union-attr]


ROWS = [
    row("GET", RECEIVERS, ADMIN, RECEIVERS),
    row("POST", RECEIVERS, ADMIN, lambda w: (RECEIVERS, HOOK), 201),
    row("GET", ONE, ADMIN, _one()),
    row("PATCH", ONE, ADMIN, _one(body={"name": "other"} | WHY)),
    row("POST", f"{ONE}/rotate", ADMIN, _one("/rotate", WHY), 201),
    row("POST", f"{ONE}/test", ADMIN, _one("/test", WHY), 202),
    row("GET", f"{ONE}/deliveries", ADMIN, _one("/deliveries")),
    row("GET", DELIVERY, ADMIN, _delivery()),
    row("POST", f"{DELIVERY}/send-again", ADMIN, _delivery("/send-again", WHY), 202),
    row("GET", "break-glass", ANY, "break-glass"),
    row(
        "POST",
        "break-glass/<uuid:pk>/review",
        here("approver", "w-plain", person=True),
        _opened("/review", WHY),
    ),
    page("GET", "notifications/", ADMIN, "notifications/"),
    page("GET", "notifications/add/", ADMIN, "notifications/add/"),
    page("POST", "notifications/add/", ADMIN, lambda w: ("notifications/add/", HOOK), 200),
    page("GET", "notifications/<uuid:pk>/", ADMIN, _one("/", at="notifications")),
    page("POST", "notifications/<uuid:pk>/", ADMIN, _one("/", FORM, at="notifications")),
    page("POST", "notifications/<uuid:pk>/test/", ADMIN, _one("/test/", WHY, at="notifications")),
    page("GET", "notifications/<uuid:pk>/rotate/", ADMIN, _one("/rotate/", at="notifications")),
    page(
        "POST",
        "notifications/<uuid:pk>/rotate/",
        ADMIN,
        _one("/rotate/", {"hours": "24"} | WHY, at="notifications"),
        200,
    ),
    page("POST", "notifications/deliveries/<uuid:pk>/send-again/", ADMIN, _delivery("/send-again/", WHY)),
    page("GET", "break-glass/", ANY, "break-glass/"),
    page("GET", "break-glass/<uuid:pk>/", here("viewer"), _opened("/")),
    page("POST", "break-glass/<uuid:pk>/", here("approver"), _opened("/", WHY)),
]
