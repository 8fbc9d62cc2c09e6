"""Server time and queries of the console's pages: 1,000 workloads, 500 routers, and a rollout of 14 days by minute.

`python -m benchmarks.console [workloads] [days]` on SQLite; with DATABASE_URL on the empty database that it names.
The time is that of a request through all middleware, the best of some; a poll is asked without and with its tag.
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


def first(client: object, address: str) -> float:
    """Milliseconds of a process's first look at it: nothing is kept yet."""
    kept_sums._KEPT.clear()
    began = time.perf_counter()
    client.get(address)  # type: ignore[attr-defined]
    return (time.perf_counter() - began) * 1_000


def measured(client: object, address: str, **headers: str) -> tuple[float, int, int]:
    """(milliseconds at best, queries, status)."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.perf_counter()
        response = client.get(address, headers=headers)  # type: ignore[attr-defined]
        best = min(best, time.perf_counter() - began)
    with CaptureQueriesContext(connection) as asked:
        client.get(address, headers=headers)  # type: ignore[attr-defined]
    return best * 1_000, len(asked), response.status_code


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
    print(f"{'page':56} {'ms':>7} {'queries':>8}")
    for address in pages:
        ms, queries, status = measured(client, address)
        print(
            f"{address.replace(str(rollout.pk), 'ID'):56} {ms:7.1f} {queries:8} {'' if status == 200 else status}"
        )
    print(
        f"{'a rollout that this process has not shown yet':56} {min(first(client, page) for _ in range(RUNS)):7.1f}"
    )
    tag = client.get(page, headers=POLL).headers["ETag"]
    for name, headers in (
        ("its poll, something new", POLL),
        ("its poll, nothing new", {**POLL, "If-None-Match": tag}),
    ):
        ms, queries, status = measured(client, page, **headers)
        print(f"{name:56} {ms:7.1f} {queries:8} {status}")


if __name__ == "__main__":
    main()
