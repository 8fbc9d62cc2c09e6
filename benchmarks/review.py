"""Processor time and queries of the review's pages: 1,000 workloads, 90 days compared with 90.

`python -m benchmarks.review [workloads] [days]` on SQLite; with DATABASE_URL on the empty database that it names.
Each workload has three endpoints, with two rules and two models a day; one has its last two hours by minute.
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

from controlplane.access.models import Membership  # noqa: E402
from controlplane.server.lifespan import _spare_the_garbage_collector  # noqa: E402
from policies_app.models import Environment  # noqa: E402
from rollout_app.review import columns, rollups  # noqa: E402
from rollout_app.review.models import DayOutcomes, DayState, RunningOutcomes, RunningState  # noqa: E402
from tests.support import builders  # noqa: E402
from tests.support.outcomes import outcome  # noqa: E402

RUNS = 7
NOW = datetime.now(UTC)
ROUTES = [
    (f"/endpoint-{n}", *route) for n in range(3) for route in (("default", "small"), ("heavy", "large"))
]
# Generated from the workload w, the day d and the route r, the same on both databases.
_TASKS = "(50 + (w * 7919 + d * 104729 + r * 1299709) % 5000)"
_GOOD = f"({_TASKS} * (880 + (w * 31 + d * 17 + r) % 90) / 1000)"
_COST = "(60000 + 840000 * (r % 2))"
_VALUES = {
    "tasks": _TASKS, "successes": _GOOD, "failures": f"{_TASKS} - {_GOOD}", "attempts": _TASKS, "cost_n": _TASKS,
    "cost_sum": f"{_TASKS} * {_COST}", "cost_sum_sq": f"2.0 * {_TASKS} * {_COST} * {_COST}", "graded_n": _TASKS,
    "graded_successes": _GOOD, "graded_sum": f"{_TASKS} * {_COST}",
    "graded_sum_sq": f"2.0 * {_TASKS} * {_COST} * {_COST}", "graded_on_success": f"{_GOOD} * {_COST}",
}  # fmt: skip


def fill() -> Environment:
    environment = builders.environment("production")
    teams = [builders.team(f"team-{n}") for n in range(20)]
    for n in range(WORKLOADS):
        builders.served(environment, builders.workload(f"workload-{n}", owner=teams[n % 20]))
    first = (NOW - timedelta(days=2 * DAYS)).date()
    _insert_days(environment.pk, first)
    _insert_running(environment.pk)
    workloads = list(environment.assignments.values_list("workload_id", flat=True))
    yesterday = NOW.date() - timedelta(days=1)
    for back in range(2 * DAYS):
        day = yesterday - timedelta(days=back)
        states = (DayState(environment=environment, workload_id=pk, day=day) for pk in workloads)
        DayState.objects.bulk_create(states, batch_size=5_000)
    RunningState.objects.bulk_create(
        RunningState(environment=environment, workload_id=pk, valid_to=yesterday) for pk in workloads
    )
    busy = environment.assignments.select_related("workload").get(workload__name="workload-0").workload
    for minute in range(120):  # hours that are read from the outcomes
        outcome(environment, busy, NOW.replace(second=0, microsecond=0) - timedelta(minutes=minute))
    rollups.refresh(NOW)
    return environment


def _insert_days(environment: int, first: object) -> None:
    day = "date(%s, '+' || d || ' days')" if connection.vendor == "sqlite" else "(%s::date + d)"
    routes = " UNION ALL ".join(
        f"SELECT {r}, '{e}', '{rule}', '{m}'" for r, (e, rule, m) in enumerate(ROUTES)
    )
    values = {name: _VALUES.get(name, "0") for name in columns.COLUMNS}
    names = ", ".join(values)
    with connection.cursor() as cursor:
        cursor.execute(  # our own names of tables and columns, and figures from above
            "WITH RECURSIVE days(d) AS (SELECT 0 UNION ALL SELECT d + 1 FROM days WHERE d < %s), "  # noqa: S608
            f"routes(r, endpoint, rule, model) AS ({routes}), "
            "works(w) AS (SELECT workload_id FROM policies_app_assignment WHERE environment_id = %s) "
            f"INSERT INTO {DayOutcomes._meta.db_table} "
            f"(environment_id, workload_id, day, rollout, stage, arm, version, endpoint, rule, model, {names}) "
            f"SELECT %s, w, {day}, '', -1, 'baseline', 1, endpoint, rule, model, {', '.join(values.values())} "
            "FROM works, days, routes ORDER BY d, w",
            [2 * DAYS - 1, environment, environment, str(first)],
        )


def _insert_running(environment: int) -> None:
    sums = ", ".join(f"sum(sum({name})) OVER w AS {name}" for name in columns.COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {RunningOutcomes._meta.db_table} (environment_id, workload_id, day, endpoint, "  # noqa: S608
            f"{', '.join(columns.COLUMNS)}) SELECT environment_id, workload_id, day, endpoint, {sums} "
            f"FROM {DayOutcomes._meta.db_table} WHERE environment_id = %s "
            "GROUP BY environment_id, workload_id, endpoint, day "
            "WINDOW w AS (PARTITION BY workload_id, endpoint ORDER BY day) ORDER BY day, workload_id",
            [environment],
        )


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
    _spare_the_garbage_collector()  # as a server does that starts
    sums = DayOutcomes.objects.count()
    print(
        f"{WORKLOADS:,} workloads, {DAYS} days beside {DAYS}, {sums:,} daily sums, median of {RUNS}",
        flush=True,
    )
    for path in (
        f"/api/v1/environments/production/review?days={DAYS}",
        f"/api/v1/environments/production/review/workload-0?days={DAYS}",
        f"/console/review/production/?days={DAYS}",
        f"/console/review/production/?days={DAYS}&owner=team-3",
        f"/console/review/production/workload-0/?days={DAYS}",
        f"/api/v1/environments/production/spend?days={DAYS}",
        "/console/",
        "/console/spend/",
        "/console/workloads/",
        "/console/workloads/workload-0/",
        "/console/rollouts/",
    ):
        measure(client, path)


if __name__ == "__main__":
    main()
