"""Processor time and queries of the review's pages: 1,000 workloads, 90 days compared with the 90 before.

`python -m benchmarks.review [workloads] [days]` on SQLite; with DATABASE_URL, on the empty database that it names.
Each workload has three endpoints, with two rules and two models a day. One workload has its last two hours by minute.
"""

import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta

WORKLOADS = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
DAYS = int(sys.argv[2]) if len(sys.argv) > 2 else 90
os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-review-")
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
os.environ["REDIS_URL"] = ""
os.environ.setdefault("DATABASE_URL", f"sqlite:///{os.environ['POINTSMAN_VAR']}/review.sqlite3")

import django  # noqa: E402

django.setup()

from django.conf import settings  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402

from benchmarks.filled.days import insert_days  # noqa: E402
from controlplane.access.models import Membership  # noqa: E402
from policies_app.models import Environment  # noqa: E402
from rollout_app.review import rollups  # noqa: E402
from rollout_app.review.models import DayOutcomes  # noqa: E402
from tests.support import builders  # noqa: E402
from tests.support.outcomes import outcome  # noqa: E402

RUNS = 7
NOW = datetime.now(UTC)


def fill() -> Environment:
    environment = builders.environment("production")
    teams = [builders.team(f"team-{n}") for n in range(20)]
    for n in range(WORKLOADS):
        builders.served(environment, builders.workload(f"workload-{n}", owner=teams[n % 20]))
    insert_days(environment, 2 * DAYS, NOW)
    busy = environment.assignments.select_related("workload").get(workload__name="workload-0").workload
    for minute in range(120):  # the last two hours, which the page reads from the outcomes
        outcome(environment, busy, NOW.replace(second=0, microsecond=0) - timedelta(minutes=minute))
    rollups.refresh(NOW)
    return environment


def measure(client: Client, path: str) -> None:
    client.get(path)
    times, queries, size = [], 0, 0
    for _ in range(RUNS):
        with CaptureQueriesContext(connection) as caught:
            began = time.process_time()
            response = client.get(path)
            times.append(time.process_time() - began)
        if response.status_code != 200:
            raise SystemExit(f"{path} answers {response.status_code}")
        queries, size = len(caught), len(response.content)
    times.sort()
    print(f"{path:72}{times[RUNS // 2] * 1000:6.0f} ms{queries:4d} queries{size / 1000:7.0f} kB", flush=True)


def main() -> None:
    settings.ALLOWED_HOSTS = ["*"]
    call_command("migrate", verbosity=0)
    fill()
    user = User.objects.create_user("bench")
    Membership.objects.create(user=user, environment="", role="admin")
    client = Client()
    client.force_login(user)
    sums = DayOutcomes.objects.count()
    print(
        f"{WORKLOADS:,} workloads, {DAYS} days compared with {DAYS}, {sums:,} daily sums, median of {RUNS}",
        flush=True,
    )
    for path in (
        f"/api/v1/environments/production/review?days={DAYS}",
        f"/api/v1/environments/production/review/workload-0?days={DAYS}",
        f"/console/review/production/?days={DAYS}",
        f"/console/review/production/?days={DAYS}&owner=team-3",
        f"/console/review/production/workload-0/?days={DAYS}",
        "/console/",
        "/console/workloads/",
        "/console/workloads/workload-0/",
        "/console/rollouts/",
    ):
        measure(client, path)


if __name__ == "__main__":
    main()
