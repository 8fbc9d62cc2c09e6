"""Daily outcomes of all workloads that an environment serves, as the roll-up stores them.

Each workload has three endpoints, with two rules and two models a day.
"""

from datetime import date, datetime, timedelta

from django.db import connection

from policies_app.models import Environment
from rollout_app.review import columns
from rollout_app.review.models import DayOutcomes, DayState, RunningOutcomes, RunningState

ROUTES = [
    (f"/endpoint-{n}", *route) for n in range(3) for route in (("default", "small"), ("heavy", "large"))
]
# Computed from the workload w, the day d and the route r, so they are the same on both databases.
_TASKS = "(50 + (w * 7919 + d * 104729 + r * 1299709) % 5000)"
_GOOD = f"({_TASKS} * (880 + (w * 31 + d * 17 + r) % 90) / 1000)"
_COST = "(60000 + 840000 * (r % 2))"
_VALUES = {
    "tasks": _TASKS, "successes": _GOOD, "failures": f"{_TASKS} - {_GOOD}", "attempts": _TASKS, "cost_n": _TASKS,
    "cost_sum": f"{_TASKS} * {_COST}", "cost_sum_sq": f"2.0 * {_TASKS} * {_COST} * {_COST}", "graded_n": _TASKS,
    "graded_successes": _GOOD, "graded_sum": f"{_TASKS} * {_COST}",
    "graded_sum_sq": f"2.0 * {_TASKS} * {_COST} * {_COST}", "graded_on_success": f"{_GOOD} * {_COST}",
}  # fmt: skip


def insert_days(environment: Environment, days: int, now: datetime) -> None:
    """Insert the `days` days before today, and mark them as rolled up."""
    first = (now - timedelta(days=days)).date()
    _insert_days(environment.pk, first, days)
    _insert_running(environment.pk)
    workloads = list(environment.assignments.values_list("workload_id", flat=True))
    yesterday = now.date() - timedelta(days=1)
    for back in range(days):
        day = yesterday - timedelta(days=back)
        states = (DayState(environment=environment, workload_id=pk, day=day) for pk in workloads)
        DayState.objects.bulk_create(states, batch_size=5_000)
    RunningState.objects.bulk_create(
        RunningState(environment=environment, workload_id=pk, valid_to=yesterday) for pk in workloads
    )


def _insert_days(environment: int, first: date, days: int) -> None:
    day = "date(%s, '+' || d || ' days')" if connection.vendor == "sqlite" else "(%s::date + d)"
    routes = " UNION ALL ".join(
        f"SELECT {r}, '{e}', '{rule}', '{m}'" for r, (e, rule, m) in enumerate(ROUTES)
    )
    values = {name: _VALUES.get(name, "0") for name in columns.COLUMNS}
    names = ", ".join(values)
    with connection.cursor() as cursor:
        cursor.execute(  # safe: names of our own tables and columns, and figures from above
            "WITH RECURSIVE days(d) AS (SELECT 0 UNION ALL SELECT d + 1 FROM days WHERE d < %s), "  # noqa: S608
            f"routes(r, endpoint, rule, model) AS ({routes}), "
            "works(w) AS (SELECT workload_id FROM policies_app_assignment WHERE environment_id = %s) "
            f"INSERT INTO {DayOutcomes._meta.db_table} "
            f"(environment_id, workload_id, day, rollout, stage, arm, version, endpoint, rule, model, {names}) "
            f"SELECT %s, w, {day}, '', -1, 'baseline', 1, endpoint, rule, model, {', '.join(values.values())} "
            "FROM works, days, routes ORDER BY d, w",
            [days - 1, environment, environment, str(first)],
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
