"""Endpoints for monitoring: liveness, readiness and metrics. None of them waits for anything.

/healthz   the event loop runs. Checks nothing else, so that no process is restarted because the database is away.
/readyz    200, or 503 with the failed checks. `?exclude=engine` ignores a check: use it for a load balancer, since a
           stopped engine is no reason to take every gateway out of service.
/metrics   Prometheus text: metrics of this process and of the database. Meant for an internal network.

A thread runs the slow checks, another reads the database's metrics. A response shows the last results, and how long a
check has had none.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from django.conf import settings
from django.core.cache import caches
from django.db import connection
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from prometheus_client.core import GaugeMetricFamily

from controlplane.audit import log, triggers
from controlplane.audit.models import Checkpoint, Head
from controlplane.core import clock, figures, heartbeats, signing, tables
from controlplane.core.threads import LoopThread
from controlplane.web.replies import Reply, json_reply

CHECK_S = 2.0
SELDOM_S = 60.0  # interval of checks whose result changes only with a deployment
REST = 4  # how many times longer than a read of the figures takes the pause after it is, at least
UNSEEN_S = 30.0  # a check without a result for this long counts as failed
INFORMATIVE = frozenset({"redis"})  # reported but not required: without Redis, processes poll the database

_ALIVE = Reply(200, [(b"content-type", b"text/plain"), (b"content-length", b"3")], b"ok\n")


@dataclass
class Check:
    """One check. `run` returns what is wrong, or "" if nothing is, and raises if it cannot tell."""

    run: Callable[[], str]
    every: float = CHECK_S
    seen_at: float | None = None  # monotonic time of the last result
    wrong: str = ""
    error: str = "no answer yet"  # why the last attempt gave no result

    def refresh(self) -> None:
        seen_now = self.seen_at is not None and time.monotonic() - self.seen_at < self.every
        if seen_now and not self.wrong and not self.error:
            return
        try:
            self.wrong = self.run()
            self.seen_at, self.error = time.monotonic(), ""
        except Exception as error:  # any error means "not ready", not a 500
            self.error = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            connection.close()

    def outcome(self) -> str:
        """Return "ok" or what is wrong."""
        if self.seen_at is None:
            return self.error
        unseen = time.monotonic() - self.seen_at - self.every
        if unseen > UNSEEN_S:
            return f"no answer for {unseen:.0f} s ({self.error or 'the last check has not ended'})"
        return self.wrong or "ok"


class Health(LoopThread):
    """The thread that runs the checks, one per process.

    `ages` maps other threads to the seconds since they last worked, or None before they start."""

    def __init__(self, ages: Mapping[str, Callable[[], float | None]]) -> None:
        super().__init__("health")
        self._ages = ages
        self._checks = {
            "database": Check(_database),
            "migrations": Check(tables.unfit, SELDOM_S),
            "append_only": Check(_append_only, SELDOM_S),
            "redis": Check(_redis),
            "engine": Check(_engine),
            "signing_key": Check(_signing_key, SELDOM_S),
        }

    def round(self) -> float:
        for check in self._checks.values():
            check.refresh()
        return CHECK_S

    # --- the answers ----------------------------------------------------------------------------------

    def alive(self) -> Reply:
        return _ALIVE

    def readiness(self, excluded: Collection[str] = ()) -> Reply:
        found = {name: check.outcome() for name, check in self._checks.items()}
        found |= {name: _freshness(age()) for name, age in self._ages.items()}
        ignored = INFORMATIVE.union(excluded)
        ready = all(outcome == "ok" for name, outcome in found.items() if name not in ignored)
        document = {"ready": ready, "checks": found}
        headers = () if ready else ((b"retry-after", b"2"),)
        return json_reply(200 if ready else 503, document, (b"cache-control", b"no-store"), *headers)

    def metrics(self) -> Reply:
        body = generate_latest(REGISTRY)
        length = (b"content-length", b"%d" % len(body))
        return Reply(200, [(b"content-type", CONTENT_TYPE_LATEST.encode()), length], body)


class FiguresThread(LoopThread):
    """Reads the metrics that only the database knows. One per process, apart from the checks: with many routers it
    takes seconds, and readiness must not wait for it."""

    def __init__(self) -> None:
        super().__init__("figures")

    def round(self) -> float:
        began = time.monotonic()
        figures.refresh()
        return max(CHECK_S, REST * (time.monotonic() - began))


def _freshness(age: float | None) -> str:
    if age is None:
        return "not started yet"
    return "ok" if age <= UNSEEN_S else f"has not worked for {age:.0f} s"


def _database() -> str:
    clock.now()
    return ""


def _append_only() -> str:
    missing = triggers.missing(connection)
    return f"append-only triggers are missing: {', '.join(missing)}" if missing else ""


def _redis() -> str:
    if not settings.REDIS_URL:
        return ""
    try:
        caches["limits"].get("readyz")  # the other one answers without Redis, too
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""


def _engine() -> str:
    age = heartbeats.engine_age()
    if age is None:
        return "no sweep has ended yet: check that the embedded runner, or a worker and beat, is running"
    return f"the last sweep ended {age:.0f} s ago" if age > heartbeats.DEAD_AFTER_S else ""


def _signing_key() -> str:
    return "" if signing.key_id() else "no key"


class AuditFigures(figures.DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        entries = GaugeMetricFamily("pointsman_audit_entries", "Entries in the audit log")
        unsigned = GaugeMetricFamily(
            "pointsman_audit_entries_after_checkpoint", "Entries that no signed checkpoint covers yet"
        )
        last = Head.objects.filter(pk=log.HEAD).values_list("seq", flat=True).first() or 0
        signed = Checkpoint.objects.order_by("-seq").values_list("seq", flat=True).first() or 0
        entries.add_metric([], last)
        unsigned.add_metric([], last - signed)
        return [entries, unsigned]


class JobFigures(figures.DatabaseFigures):
    def read(self) -> list[GaugeMetricFamily]:
        age = GaugeMetricFamily(
            "pointsman_job_age_seconds", "Seconds since a periodic job last finished", labels=["job"]
        )
        for job, seconds in heartbeats.ages().items():
            if seconds is not None:
                age.add_metric([job], seconds)
        return [age]


figures.register(AuditFigures())
figures.register(JobFigures())
