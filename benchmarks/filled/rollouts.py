"""Rollouts of several months: many that ended, and one that has run for a long time, by minute."""

from datetime import datetime, timedelta
from itertools import cycle, islice
from typing import Any

from django.db import connection
from django.db.models import Model

from policies_app.models import Environment, PolicyVersion
from rollout_app.engine.states import State
from rollout_app.models import ArmTotals, OutcomeBucket, Rollout, Transition
from rollout_app.review.rollups import mark_changed
from tests.support.evidence_builders import ledger

_STAGES = [
    {"mode": "shadow", "min_tasks": 1_000},
    *({"mode": "percentage", "share_pcm": share, "min_tasks": 50} for share in (5_000, 25_000, 50_000)),
    {"mode": "full"},
]
_ENDS = (State.COMPLETED, State.COMPLETED, State.ROLLED_BACK, State.COMPLETED, State.CANCELLED)


def insert_ended(environment: Environment, many: int, days: int, now: datetime, proposer: str) -> None:
    """Insert ended rollouts of the workloads with a second version, spread over the days, with history and figures."""
    seconds = list(PolicyVersion.objects.filter(number=2).select_related("workload"))
    firsts = {v.workload_id: v for v in PolicyVersion.objects.filter(number=1)}
    evidence = ledger(looks=50).as_dict()
    rollouts = [
        Rollout(
            environment=environment, workload=candidate.workload, baseline=firsts[candidate.workload_id],
            candidate=candidate, plan_name="standard", stages=_STAGES, salt=f"ended-{n}", state=_ENDS[n % len(_ENDS)],
            stage=n % len(_STAGES), version=9, reason="A cheaper model does as well here.", proposer_label="ada",
            proposer_user_id=proposer, started_at=ended - timedelta(hours=9), ended_at=ended, evidence=evidence,
            rollback_reason="Failures rose by 6 points." if n % len(_ENDS) == 2 else "", evaluations=50,
        )
        for n, candidate in enumerate(islice(cycle(seconds), many))
        for ended in [now - timedelta(days=days) * n / many]
    ]  # fmt: skip
    Rollout.objects.bulk_create(rollouts, batch_size=200)
    Transition.objects.bulk_create(
        (
            Transition(
                rollout=rollout, sequence=at, event="advance", before_state="running", before_stage=0, reason="Enough.",
                after_state="running", after_stage=at % len(_STAGES), actor_kind="system", actor_label="Pointsman",
            )
            for rollout in rollouts
            for at in range(1, 9)
        ),
        batch_size=1_000,
    )  # fmt: skip
    _insert_one_minute_each(rollouts)


def _insert_one_minute_each(rollouts: list[Rollout]) -> None:
    """Insert the minutes that the page of an ended rollout adds up."""
    ArmTotals.objects.bulk_create(
        (
            ArmTotals(**_place(rollout, arm, rollout.ended_at), **_FIGURES)
            for rollout in rollouts
            for arm in ("baseline", "candidate")
        ),
        batch_size=300,
    )


_FIGURES: dict[str, Any] = {
    "tasks": 50, "successes": 45, "failures": 5, "attempts": 52, "escalations": 4, "cost_n": 50, "cost_sum": 10**9,
    "cost_sum_sq": 4e16, "graded_n": 50, "graded_successes": 45, "graded_sum": 10**9, "graded_sum_sq": 4e16,
    "graded_on_success": 9 * 10**8,
}  # fmt: skip


# As routers report it: of 50 tasks, the two policies differ on 10.
_DIFFERING: dict[str, Any] = {
    "differing_known": 50,
    "differing": {"openai/gpt-4o>openai/gpt-4o-mini": [10, 9, 1, 10, 9, 10**8, 10**15, 9 * 10**7, 10**8]},
}  # fmt: skip


def _place(rollout: Rollout, arm: str, minute: Any) -> dict[str, Any]:
    return {
        "environment": rollout.environment, "workload": rollout.workload, "rollout": str(rollout.pk), "stage": 0,
        "arm": arm, "version": 1 if arm == "baseline" else 2, "minute": minute.replace(second=0, microsecond=0),
    }  # fmt: skip


def make_long(rollout: Rollout, days: int, now: datetime) -> Rollout:
    """Make the rollout look started `days` ago: both arms by minute, with routes, and an evaluation of everything."""
    start = now.replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
    for arm in ("baseline", "candidate"):
        place = _place(rollout, arm, start)
        route = {"endpoint": "/endpoint-0", "rule": "default", "model": "small", **_DIFFERING}
        _repeat(ArmTotals.objects.create(**place, **_FIGURES), days * 1_440)
        _repeat(OutcomeBucket.objects.create(**place, **route, **_FIGURES), days * 1_440)
    hours = (start + timedelta(hours=n) for n in range(days * 24))
    mark_changed(
        (rollout.environment_id, rollout.workload_id, hour) for hour in hours
    )  # as ingest counts them
    Rollout.objects.filter(pk=rollout.pk).update(
        started_at=start, stage_entered_at=start, evidence=ledger(looks=50).as_dict(), evaluated_at=now
    )
    return Rollout.objects.get(pk=rollout.pk)


def _repeat(row: Model, minutes: int) -> None:
    """Copy the row to each of the following minutes."""
    columns = [f.column for f in row._meta.concrete_fields if f.column not in ("id", "minute")]
    later = "datetime(minute, '+' || n || ' minutes')"
    if connection.vendor == "postgresql":
        later = "minute + n * interval '1 minute'"
    with connection.cursor() as cursor:
        cursor.execute(  # safe: names of our own tables and columns
            f"WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < %s) "  # noqa: S608
            f"INSERT INTO {row._meta.db_table} (minute, {', '.join(columns)}) "
            f"SELECT {later}, {', '.join(columns)} FROM {row._meta.db_table}, numbers WHERE id = %s",
            [minutes - 1, row.pk],
        )
