"""The time in which one process sweeps its active rollouts, on SQLite and on PostgreSQL.

`python benchmarks/sweep.py [rollouts …]` (default 1,000 and 10,000) on both: on the server of TEST_DATABASE_URL, or on
a PostgreSQL started by the tests (without fsync). Every rollout has its own baseline, and is 20 minutes into its
second stage. Its routers report every optional figure: decisions, four endpoints, two route pairs on which the
policies differ, costs with grades. Sweeps: the first one after a restart of everything (all evidence is read), one
with a new stratum for every rollout, some with a new stratum for one in thirty (the steady state: each has one per
minute, and a sweep runs every two seconds), and one without new outcomes. Seconds are elapsed time and processor time
of this process. A separate database is created and dropped.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
if "--on" not in sys.argv:  # one process for each database and size, because settings are read only once
    from tests.support.services import postgres_url

    for url in ("", postgres_url()):
        each = []
        for size in sys.argv[1:] or ("1000", "10000"):
            command = [sys.executable, __file__, size, "--on", url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                for line in child.stdout or ():
                    print(line, end="", flush=True)
            each.append(float(line.split()[-1]))  # its last line ends with ms per evaluation
        print(
            f"growth from the fewest to the most rollouts: {each[-1] / each[0]:.2f} times the time per evaluation\n",
            flush=True,
        )
    sys.exit()

os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-sweep-")
os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
os.environ["REDIS_URL"] = ""
os.environ["DATABASE_URL"] = sys.argv[3] or f"sqlite:///{os.environ['POINTSMAN_VAR']}/unused.sqlite3"

import django  # noqa: E402

django.setup()

from django.db import connection  # noqa: E402
from django.db.models import F  # noqa: E402

from controlplane.core import clock  # noqa: E402
from controlplane.core.actors import SYSTEM  # noqa: E402
from controlplane.core.bulk import chunks, flat, places  # noqa: E402
from pointsman.reporting.histogram import Histogram  # noqa: E402
from policies_app.models import Router, Workload  # noqa: E402
from rollout_app import actions  # noqa: E402
from rollout_app.engine.guardrails import guardrails_for  # noqa: E402
from rollout_app.engine.reference import Reference  # noqa: E402
from rollout_app.evaluation import reconcile  # noqa: E402
from rollout_app.models import ArmTotals, Rollout  # noqa: E402

PLAN = [
    {"mode": "percentage", "share_pcm": 5_000, "min_minutes": 1_000},
    {"mode": "percentage", "share_pcm": 50_000, "min_minutes": 1_000},
    {"mode": "full"},
]
STAGE, TASKS, MINUTES = 1, 60, 20
IN_A_MINUTE = 30  # sweeps per minute
MADE = 97  # rollouts with their own outcomes; creating them is slow


class Place(NamedTuple):
    """The key of a rollout's outcomes. The rollouts themselves are released, to spare the garbage collector."""

    environment: int
    workload: int
    rollout: str


def reference(seed: int) -> Reference:
    """Return the reference of a rollout. No two are equal."""
    rng = random.Random(seed)
    means = {
        "failure": 0.08, "error": 0.01, "escalation": 0.1, "fallback": 0.01, "retry": 0.02,
        "latency_tail": 0.04, "cost_tail": 0.04,
    }  # fmt: skip
    return Reference(
        outcomes=rng.randint(2_000, 90_000),
        rates={name: mean * rng.uniform(0.7, 1.3) for name, mean in means.items()},
        cost_v=rng.uniform(0.5, 3),
        cost_per_success=rng.uniform(1e5, 1e7),
        latency_edge=160,
        cost_edge=330,
        cost_cap_nusd=3_000_000,
        cost_quantiles=(318, 326, 333),
        mechanisms=("escalate", "fallback", "retry"),
    )


def slices(tasks: int, good: int, shares: dict[str, float]) -> dict[str, list[float]]:
    """Return {name: figures in the order of `aggregate.SLICE`}."""
    made = {}
    for name, share in shares.items():
        n, x = round(tasks * share), min(round(tasks * share), round(good * share))
        made[name] = [n, x, n - x, n, x, n * 10**6, n * 1.6e12, x * 10**6, n * 10**6]
    return made


def totals(place: Place, arm: str, minute: datetime, tasks: int, rng: random.Random) -> ArmTotals:
    def bad(rate: float) -> int:
        return sum(rng.random() < rate for _ in range(tasks))

    good, latency, cost = tasks - bad(0.08), Histogram(), Histogram()
    for _ in range(tasks):
        latency.record(rng.lognormvariate(6.5, 0.6))
        cost.record(rng.lognormvariate(13.8, 0.7))
    return ArmTotals(
        environment_id=place.environment,
        workload_id=place.workload,
        rollout=place.rollout,
        stage=STAGE,
        arm=arm,
        version=1,
        minute=minute,
        tasks=tasks,
        successes=good,
        failures=tasks - good,
        attempts=tasks,
        errors=bad(0.01),
        escalations=bad(0.1),
        fallbacks=bad(0.01),
        retries=bad(0.02),
        cost_n=tasks,
        capped_sum=tasks * 10**6,
        capped_sum_sq=tasks * 1.6e12,
        capped_on_success=good * 10**6,
        cost_sum=tasks * 10**6,
        graded_n=tasks,
        graded_successes=good,
        graded_sum=tasks * 10**6,
        graded_capped_sum=tasks * 10**6,
        graded_capped_sum_sq=tasks * 1.6e12,
        graded_capped_on_success=good * 10**6,
        tracked=tasks,
        decided=tasks,
        differing_known=tasks,
        decided_differing_known=tasks,
        decided_differing=round(0.3 * tasks),
        differing=slices(tasks, good, {"large>small": 0.2, "large>medium": 0.1}),
        endpoints=slices(tasks, good, {"/a": 0.4, "/b": 0.3, "/c": 0.2, "/d": 0.1}),
        cost_histogram=cost.as_dict(),
        latency_histogram=latency.as_dict(),
    )


def minutes_of(rollouts: list[Place], first: datetime, minutes: int, seed: int) -> None:
    """Insert minutes of both arms at the second stage's share: generated for some rollouts, copied to the others."""
    rng, ours = random.Random(seed), round(TASKS * 0.5)
    made, copied = rollouts[:MADE], rollouts[MADE:]
    rows = [
        totals(rollout, arm, first + timedelta(minutes=at), ours, rng)
        for at in range(minutes)
        for rollout in made
        for arm in ("candidate", "baseline")
    ]
    ArmTotals.objects.bulk_create(rows, batch_size=500)
    columns = [f.column for f in ArmTotals._meta.fields if f.column not in ("id", "rollout", "workload_id")]
    names, table = ", ".join(columns), ArmTotals._meta.db_table
    same = ", ".join(f"t.{column}" for column in columns)
    for some in chunks(copied, 500):
        values = [(place.rollout, place.workload, made[at % MADE].rollout) for at, place in enumerate(some)]
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} (rollout, workload_id, {names}) "  # noqa: S608 — our own names
                f"SELECT v.column1, v.column2, {same} "
                f"FROM (VALUES {places(values)}) v CROSS JOIN {table} t "
                f"WHERE t.rollout = v.column3 AND t.stage = {STAGE} AND t.minute >= %s AND NOT (t.rollout = '')",
                [*flat(values), connection.ops.adapt_datetimefield_value(first)],
            )


def many(count: int) -> list[Place]:
    """Create `count` running rollouts: one with the real actions, the rest as copies of its rows."""
    from tests.support import builders

    environment, workload = builders.environment(), builders.workload()
    first = builders.served(environment, workload).baseline
    made = actions.propose_rollout(
        environment, workload, builders.version(workload), plan=PLAN, reason="x", actor=SYSTEM
    )
    made = actions.start_rollout(made, actor=SYSTEM, reason="x")
    Router.objects.create(
        environment=environment,
        instance="r",
        epoch=environment.epoch,
        revision=10**6,
        polled_at=clock.now() + timedelta(hours=1),
    )
    fields = {"task_type": "x", "quality_bar": "0.9", "owner": workload.owner, "outcome_lag_s": 0}
    workloads = Workload.objects.bulk_create(
        (Workload(name=f"many-{at}", **fields) for at in range(count)), batch_size=500
    )
    common = {
        "environment": environment,
        "baseline": first,
        "candidate": made.candidate,
        "plan_name": "x",
        "stages": made.stages,
        "guardrails": [guardrail.as_dict() for guardrail in guardrails_for()],
        "salt": "x",
        "state": "running",
        "stage": STAGE,
        "reason": "x",
        "proposer_label": "x",
        "started_at": clock.now(),
        "stage_entered_at": clock.now(),
    }
    rollouts = Rollout.objects.bulk_create(
        (
            Rollout(workload=workload, reference=reference(seed).as_dict(), **common)
            for seed, workload in enumerate(workloads)
        ),
        batch_size=500,
    )
    Rollout.objects.filter(pk=made.pk).update(state="aborted")
    return [Place(environment.pk, rollout.workload_id, str(rollout.pk)) for rollout in rollouts]


def timed(what: str) -> tuple[float, float]:
    """Return elapsed seconds, and milliseconds of our processor time per evaluation."""
    began, worked = time.perf_counter(), time.process_time()
    words = reconcile.sweep()
    took, worked = time.perf_counter() - began, time.process_time() - worked
    evaluated = sum(times for word, times in words.items() if word != "rest")
    each = (
        f"{took / evaluated * 1000:6.2f} ms each ({worked / evaluated * 1000:.2f} of them ours)"
        if evaluated
        else ""
    )
    print(f"  {what:32} {took:7.2f} s  {evaluated:6} evaluations  {each}  {words}", flush=True)
    return took, worked / max(evaluated, 1) * 1000


def main() -> None:
    count = int(sys.argv[1])
    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = f"{os.environ['POINTSMAN_VAR']}/sweep.sqlite3"
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        rollouts = many(count)
        start = clock.now() - timedelta(hours=2)
        minutes_of(rollouts, start, MINUTES, 0)
        connection.cursor().execute("ANALYZE")  # as on any database that has run for a day
        print(f"{count} rollouts on {connection.vendor}, {MINUTES} minutes each, 8 guardrails", flush=True)
        timed("first evaluation: all evidence read")
        for at in (MINUTES, MINUTES + 1):
            minutes_of(rollouts, start + timedelta(minutes=at), 1, at)
            each = timed("a new stratum for each")[1]
        Rollout.objects.update(wake_at=F("evaluated_at") + timedelta(hours=1))
        steady = 0.0
        for at in range(3):
            minutes_of(rollouts[at::IN_A_MINUTE], start + timedelta(minutes=MINUTES + 2), 1, at)
            steady += timed("steady: one in thirty")[0]
        print(f"  steady state: {steady / 3:.3f} s of every 2 s, {steady / 6:.1%} of one process", flush=True)
        timed("nothing came in")
        print(f"  with a new stratum for each, ms of our processor per evaluation: {each:.2f}", flush=True)
    finally:
        connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


if __name__ == "__main__":
    main()
