"""For machines that watch: is the process alive, can it work, what are its figures."""

from collections.abc import Callable, Iterable

from django.conf import settings
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controlplane.audit import log, triggers
from controlplane.audit.models import Checkpoint, Head
from controlplane.core import clock, signing


@require_safe
def healthz(request: HttpRequest) -> HttpResponse:
    """Alive: asks nothing of anybody, so that a database that is away restarts no process."""
    return HttpResponse("ok\n", content_type="text/plain")


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Able to work: 200, or 503 naming what is missing. Redis is told of and not needed: without it processes look."""
    found = {name: _outcome(check) for name, check in _CHECKS.items()}
    ready = all(outcome == "ok" for name, outcome in found.items() if name != "redis")
    return JsonResponse({"ready": ready, "checks": found}, status=200 if ready else 503)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text. Figures of this process, and of the audit log. Meant for the inside of a network."""
    return HttpResponse(generate_latest(REGISTRY), content_type=CONTENT_TYPE_LATEST)


def _outcome(check: Callable[[], str]) -> str:
    try:
        return check() or "ok"
    except Exception as error:  # whatever it is, the answer is "not ready", not a 500
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _database() -> str:
    clock.now()
    return ""


def _migrations() -> str:
    executor = MigrationExecutor(connection)
    left = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return f"{len(left)} migrations are not applied: run `manage.py migrate`" if left else ""


def _append_only() -> str:
    missing = triggers.missing(connection)
    return f"append-only triggers are missing: {', '.join(missing)}" if missing else ""


def _redis() -> str:
    if settings.REDIS_URL:
        from django.core.cache import cache

        cache.get("readyz")
    return ""


def _signing_key() -> str:
    return "" if signing.key_id() else "no key"


_CHECKS = {
    "database": _database,
    "migrations": _migrations,
    "append_only": _append_only,
    "redis": _redis,
    "signing_key": _signing_key,
}


class AuditFigures(Collector):
    """Read from the database at each scrape: every process tells the same."""

    def collect(self) -> Iterable[GaugeMetricFamily]:
        entries = GaugeMetricFamily("pointsman_audit_entries", "Entries in the audit log")
        unsigned = GaugeMetricFamily(
            "pointsman_audit_entries_after_checkpoint", "Entries that no signed checkpoint covers yet"
        )
        try:
            last = Head.objects.filter(pk=log.HEAD).values_list("seq", flat=True).first() or 0
            signed = Checkpoint.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
        except Exception:  # a scrape goes on without them while the database is away
            return []
        entries.add_metric([], last)
        unsigned.add_metric([], last - signed)
        return [entries, unsigned]

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return []  # or else registering it would ask the database


REGISTRY.register(AuditFigures())
