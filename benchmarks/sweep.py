"""How long one process needs to sweep 10,000 active rollouts. `python benchmarks/sweep.py [rollouts]`

Four sweeps over the same rollouts, each 40 minutes into its second stage: the first look after a restart of
everything (all evidence read), one with a new stratum for every rollout, one with a new stratum for one in
twenty, and one in which nothing came in. A database of its own (SQLite, or on DATABASE_URL's server) is made
and dropped.
"""

import os
import sys
import tempfile
import time
from datetime import datetime, timedelta

os.environ["POINTSMAN_VAR"] = tempfile.mkdtemp(prefix="pointsman-sweep-")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))  # noqa: PTH100,PTH118,PTH120

import django  # noqa: E402

django.setup()

from django.db import connection  # noqa: E402
from django.db.models import F  # noqa: E402

from controlplane import clock  # noqa: E402
from controlplane.actors import SYSTEM  # noqa: E402
from pointsman.histogram import Histogram  # noqa: E402
from policies_app.models import Router, Workload  # noqa: E402
from rollout_app import actions, reconcile  # noqa: E402
from rollout_app.evidence import Reference  # noqa: E402
from rollout_app.guardrails import guardrails_for  # noqa: E402
from rollout_app.models import ArmTotals, Rollout  # noqa: E402

PLAN = [
    {"mode": "percentage", "share_pcm": 5_000, "min_minutes": 1_000},
    {"mode": "percentage", "share_pcm": 50_000, "min_minutes": 1_000},
    {"mode": "full"},
]
TASKS, MINUTES = 60, 40
REFERENCE = Reference(
    outcomes=5_000,
    rates={"failure": 0.08, "error": 0.01, "escalation": 0.1, "fallback": 0.01, "retry": 0.02},
    cost_v=1.5,
    cost_per_success=1_000_000.0,
    latency_edge=160,
    cost_edge=330,
    cost_cap_nusd=3_000_000,
)


def totals(rollout: Rollout, arm: str, minute: datetime, tasks: int) -> ArmTotals:
    good, latency, cost = round(tasks * 0.92), Histogram(), Histogram()
    latency.record(700, tasks)
    cost.record(1_000_000, tasks)
    return ArmTotals(
        environment_id=rollout.environment_id,
        workload_id=rollout.workload_id,
        rollout=str(rollout.pk),
        stage=0,
        arm=arm,
        version=1,
        minute=minute,
        tasks=tasks,
        successes=good,
        failures=tasks - good,
        attempts=tasks,
        cost_n=tasks,
        capped_sum=tasks * 10**6,
        capped_sum_sq=tasks * 1e12,
        capped_on_success=good * 10**6,
        cost_histogram=cost.as_dict(),
        latency_histogram=latency.as_dict(),
    )


def minute_of_all(rollouts: list[Rollout], minute: datetime) -> None:
    ours = round(TASKS * 0.3)
    ArmTotals.objects.bulk_create(
        (
            row
            for rollout in rollouts
            for row in (
                totals(rollout, "candidate", minute, ours),
                totals(rollout, "baseline", minute, TASKS - ours),
            )
        ),
        batch_size=500,
    )


def many(count: int) -> list[Rollout]:
    """`count` running rollouts: one by the real actions, the rest as copies of its rows."""
    from tests import builders

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
        "reason": "x",
        "proposer_label": "x",
        "started_at": clock.now(),
        "stage_entered_at": clock.now(),
        "reference": REFERENCE.as_dict(),
    }
    return Rollout.objects.bulk_create(
        (Rollout(workload=workload, **common) for workload in workloads), batch_size=500
    )


def timed(what: str, count: int) -> None:
    began = time.perf_counter()
    words = reconcile.sweep()
    took = time.perf_counter() - began
    looked = sum(times for word, times in words.items() if word != "rest")
    each = f", {took / looked * 1000:.2f} ms a look" if looked else ""
    print(f"{what:44} {took:8.2f} s   {looked:6} looks of {count}{each}   {words}", flush=True)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        rollouts = many(count)
        Rollout.objects.exclude(pk__in=[r.pk for r in rollouts[:1]]).filter(
            workload__name__startswith="workload"
        ).update(state="aborted")
        start = clock.now() - timedelta(hours=2)
        for at in range(MINUTES):
            minute_of_all(rollouts, start + timedelta(minutes=at))
        print(f"{count} rollouts on {connection.vendor}, {MINUTES} strata each, 8 guardrails")
        timed("first look: all evidence read", count)
        minute_of_all(rollouts, start + timedelta(minutes=MINUTES))
        timed("a new stratum for each", count)
        minute_of_all(rollouts[::20], start + timedelta(minutes=MINUTES + 1))
        timed("a new stratum for one in twenty", count)
        Rollout.objects.update(wake_at=F("looked_at") + timedelta(hours=1))
        ArmTotals.objects.update(received_at=start)
        timed("nothing came in", count)
    finally:
        connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


if __name__ == "__main__":
    main()
