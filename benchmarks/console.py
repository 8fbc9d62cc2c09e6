"""Server time and queries of the console's pages: 1,000 workloads, 500 routers, and a rollout of 14 days by minute.

`python -m benchmarks.console [workloads] [days]` on SQLite; with DATABASE_URL on the empty database that it names.
Times are those of a request through all middleware, the best of several: processor time of this process (including
SQLite, not PostgreSQL), and elapsed time. Polls are sent with and without their tag.
"""

import os
import sys
import tempfile
import time
from datetime import timedelta

WORKLOADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
DAYS = int(sys.argv[2]) if len(sys.argv) > 2 else 14
os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-console-")
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
os.environ["REDIS_URL"] = ""
os.environ.setdefault("DATABASE_URL", f"sqlite:///{os.environ['POINTSMAN_VAR']}/console.sqlite3")

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from policies_app.models import Environment, Router, Workload  # noqa: E402
from rollout_app.console import kept_sums  # noqa: E402
from rollout_app.models import ArmTotals, Rollout  # noqa: E402
from rollout_app.review.rollups import mark_changed  # noqa: E402
from tests.support import builders  # noqa: E402
from tests.support.evidence_builders import ledger  # noqa: E402
from tests.support.people import actor_of, logged_in, running  # noqa: E402

RUNS, ROUTERS = 5, 500
POLL = {"HX-Request": "true"}


def fill() -> tuple[Environment, Rollout]:
    environment = builders.environment("production")
    teams = [builders.team(f"team-{n}") for n in range(20)]
    for n in range(WORKLOADS):
        builders.served(environment, builders.workload(f"workload-{n}", owner=teams[n % 20]))
    now = timezone.now()
    Router.objects.bulk_create(
        Router(environment=environment, instance=f"gateway-{n}", epoch=environment.epoch, revision=WORKLOADS,
               polled_at=now, first_polled_at=now)
        for n in range(ROUTERS)
    )  # fmt: skip
    workload = Workload.objects.get(name="workload-0")
    builders.version(workload, actor=actor_of("maria"))
    return environment, long_rollout(running(workload, environment))


def long_rollout(rollout: Rollout) -> Rollout:
    start = timezone.now().replace(second=0, microsecond=0) - timedelta(days=DAYS)
    ArmTotals.objects.bulk_create(
        (
            ArmTotals(
                environment=rollout.environment, workload=rollout.workload, rollout=str(rollout.pk), stage=0, arm=arm,
                version=version, minute=start + timedelta(minutes=n), tasks=50, successes=45, failures=5, cost_n=50,
                cost_sum=10**9,
            )
            for n in range(DAYS * 1_440)
            for arm, version in (("baseline", 1), ("candidate", 2))
        ),
        batch_size=500,
    )  # fmt: skip
    hours = (start.replace(minute=0) + timedelta(hours=n) for n in range(DAYS * 24))
    mark_changed(
        (rollout.environment_id, rollout.workload_id, hour) for hour in hours
    )  # as ingest counts them
    kept = ledger(looks=50).as_dict()
    Rollout.objects.filter(pk=rollout.pk).update(started_at=start, evidence=kept, evaluated_at=timezone.now())
    return rollout


def first(client: object, address: str) -> None:
    """The first request of a process, without anything cached."""
    best = Timed()
    for _ in range(RUNS):
        kept_sums._KEPT.clear()
        best.ask(client, address, {})
    print(f"{'a rollout that this process has not shown yet':56} {best}")


class Timed:
    """The minimum over some requests: milliseconds of processor time and elapsed time."""

    def __init__(self) -> None:
        self.cpu = self.clock = float("inf")

    def ask(self, client: object, address: str, headers: dict[str, str]) -> int:
        began = time.process_time(), time.perf_counter()
        response = client.get(address, headers=headers)  # type: ignore[attr-defined]
        self.cpu = min(self.cpu, (time.process_time() - began[0]) * 1_000)
        self.clock = min(self.clock, (time.perf_counter() - began[1]) * 1_000)
        return int(response.status_code)

    def __str__(self) -> str:
        return f"{self.cpu:8.1f} {self.clock:8.1f}"


def measured(client: object, name: str, address: str, **headers: str) -> None:
    best = Timed()
    status = [best.ask(client, address, headers) for _ in range(RUNS)][-1]
    with CaptureQueriesContext(connection) as asked:
        client.get(address, headers=headers)  # type: ignore[attr-defined]
    print(f"{name:56} {best} {len(asked):8} {'' if status == 200 else status}")


def main() -> None:
    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    _, rollout = fill()
    client = logged_in("ada", "admin")
    page = f"/console/rollouts/{rollout.pk}/"
    pages = [
        "/console/", "/console/spend/", "/console/workloads/", "/console/workloads/workload-0/", "/console/rollouts/",
        page, f"{page}figures/", f"{page}blast-radius/", "/console/fleet/", "/console/audit/", "/console/models/",
        "/console/keys/", "/console/plans/", "/console/workloads/workload-0/guardrails/failure/",
    ]  # fmt: skip
    print(
        f"{WORKLOADS:,} workloads, {ROUTERS} routers, a rollout of {DAYS} days by minute ({connection.vendor})"
    )
    print(f"{'page':56} {'cpu ms':>8} {'ms':>8} {'queries':>8}")
    for address in pages:
        measured(client, address.replace(str(rollout.pk), "ID"), address)
    first(client, page)
    tag = client.get(page, headers=POLL).headers["ETag"]
    measured(client, "its poll, something new", page, **POLL)
    measured(client, "its poll, nothing new", page, **POLL, **{"If-None-Match": tag})


if __name__ == "__main__":
    main()
