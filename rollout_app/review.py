"""The attribution review: what went where, how well, at what cost, whose it is. Reads only.

Figures of one window beside those of the window of equal length before it. Money in nano-USD, shares 0 … 1.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet, Sum

from policies_app.actions import served_assignment
from policies_app.models import Environment, Model, PolicyVersion, Workload
from rollout_app.engine.diagnosis import Diagnosis, PolicyFigures, diagnose
from rollout_app.engine.evidence import ArmSums
from rollout_app.models import OutcomeBucket

WINDOWS = 6  # parts of the window in which a trend is looked for
MOST_ROWS = 500  # endpoints, models … that are listed; the rest is in the totals
MIN_STRONG_TASKS = 30  # fewer say too little of what the strong model costs
_COUNTS = (
    "tasks", "successes", "failures", "ungraded", "errors", "escalations", "fallbacks", "retries", "attempts",
    "cost_n", "cost_sum", "quality_n", "quality_sum",
)  # fmt: skip
BREAKDOWNS = ("endpoint", "model", "arm", "version", "rule")

Counts = Mapping[str, Any]


def review(
    environment: Environment, workload: Workload, *, end: datetime, length: timedelta
) -> dict[str, Any]:
    """The window of `length` up to `end`: whole, by endpoint, model, arm, version and rule; its diagnosis."""
    now = _window(environment, workload, end - length, end)
    before = _window(environment, workload, end - 2 * length, end - length)
    served = served_assignment(environment.pk, workload.pk)
    diagnosis = diagnosed(now, before, served.candidate or served.baseline, workload, end - length, length)
    return {
        "environment": environment.name,
        "workload": workload.name,
        "owner": workload.owner.name,
        "quality_bar": float(workload.quality_bar),
        "start": end - length,
        "end": end,
        "now": figures(_sum(now)),
        "before": figures(_sum(before)),
        **{f"by_{key}": breakdown(now, before, key) for key in BREAKDOWNS},
        "diagnosis": asdict(diagnosis),
    }


def _window(
    environment: Environment, workload: Workload, start: datetime, end: datetime
) -> QuerySet[OutcomeBucket]:
    return OutcomeBucket.objects.filter(
        environment=environment, workload=workload, minute__gte=start, minute__lt=end
    )


def _sum(rows: QuerySet[OutcomeBucket]) -> dict[str, Any]:
    sums = rows.aggregate(**{f"{name}_": Sum(name) for name in _COUNTS})
    return {name: sums[f"{name}_"] or 0 for name in _COUNTS}


def breakdown(
    now: QuerySet[OutcomeBucket], before: QuerySet[OutcomeBucket], key: str
) -> list[dict[str, Any]]:
    """One row for each value of `key`, the most tasks first, with its share and what it was before."""
    ours, theirs = _by(now, key), _by(before, key)
    all_ours, all_theirs = (sum(row["tasks"] for row in rows.values()) for rows in (ours, theirs))
    empty = dict.fromkeys(_COUNTS, 0)
    rows = [
        {
            key: value,
            "now": figures(ours.get(value, empty), of=all_ours),
            "before": figures(theirs.get(value, empty), of=all_theirs),
        }
        for value in {**ours, **theirs}
    ]
    return sorted(rows, key=lambda row: (-row["now"]["tasks"], str(row[key])))[:MOST_ROWS]


def _by(rows: QuerySet[OutcomeBucket], key: str) -> dict[Any, Counts]:
    grouped = rows.order_by().values(key).annotate(**{f"{name}_": Sum(name) for name in _COUNTS})
    return {row[key]: {name: row[f"{name}_"] or 0 for name in _COUNTS} for row in grouped}


def figures(sums: Counts, of: int | None = None) -> dict[str, Any]:
    """Rates and costs of some sums; None where there is nothing to divide by, as cost per success of none."""
    tasks, graded = sums["tasks"], sums["successes"] + sums["failures"]
    return {
        "tasks": tasks,
        "share": _ratio(tasks, tasks if of is None else of),
        "success": _ratio(sums["successes"], graded),
        "ungraded": _ratio(sums["ungraded"], tasks),
        "cost_nusd": sums["cost_sum"],
        "cost_per_task_nusd": _ratio(sums["cost_sum"], sums["cost_n"]),
        "cost_per_success_nusd": _ratio(sums["cost_sum"], sums["successes"]),
        "quality": _ratio(sums["quality_sum"], sums["quality_n"]),
        "attempts_per_task": _ratio(sums["attempts"], tasks),
        **{
            name: _ratio(sums[total], tasks)
            for name, total in (
                ("error", "errors"),
                ("escalation", "escalations"),
                ("fallback", "fallbacks"),
                ("retry", "retries"),
            )
        },
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


# --- the diagnosis -------------------------------------------------------------------------------------


def diagnosed(
    now: QuerySet[OutcomeBucket],
    before: QuerySet[OutcomeBucket],
    version: PolicyVersion,
    workload: Workload,
    start: datetime,
    length: timedelta,
) -> Diagnosis:
    """What `version` does in the window, against what was there before it.

    Without tasks of another version in the window it is compared with the window before.
    """
    policy, other = now.filter(version=version.number), now.exclude(version=version.number)
    against = _sum(other) if other.exists() else _sum(before)
    part = length / WINDOWS
    parts = (
        _sum(policy.filter(minute__gte=start + at * part, minute__lt=start + (at + 1) * part))
        for at in range(WINDOWS)
    )
    strong_tasks, strong_cost, weak_cost = _at_the_ends(policy, version)
    return diagnose(
        PolicyFigures(
            policy=_arm(_sum(policy)),
            before=_arm(against),
            strong_tasks=strong_tasks,
            always_strong_cost=strong_cost,
            always_weak_cost=weak_cost,
            quality_bar=float(workload.quality_bar),
            windows=[_arm(sums) for sums in parts if sums["tasks"]],
        )
    )


def _at_the_ends(
    policy: QuerySet[OutcomeBucket], version: PolicyVersion
) -> tuple[int, int | None, int | None]:
    """Tasks that a rule sent past the weakest model at once; what all would have cost on the strongest, the weakest.

    The costs are the mean of the tasks that went to that model at once, times all tasks: a projection, and None
    where those are too few to project from. The weakest's then follows from the strongest's by list prices.
    """
    document = version.document
    ranks = document["rank"]  # weakest first
    chosen = {rule["id"]: rule["use"] for rule in document.get("rules", ())} | {
        "default": document["default"]
    }
    past_weakest = [rule for rule, alias in chosen.items() if alias != ranks[0]]
    strong_tasks = _sum(policy.filter(rule__in=past_weakest))["tasks"]
    if len(ranks) < 2:
        return strong_tasks, None, None
    tasks = _sum(policy)["tasks"]

    def always(alias: str) -> int | None:
        rules = [rule for rule, used in chosen.items() if used == alias]
        at_once = _sum(policy.filter(rule__in=rules, model=alias, escalations=0))
        if at_once["cost_n"] < MIN_STRONG_TASKS:
            return None
        cost: int = round(at_once["cost_sum"] / at_once["cost_n"] * tasks)
        return cost

    strong, weak = always(ranks[-1]), always(ranks[0])
    if strong is not None and weak is None:
        ratio = _price_ratio(document["models"][ranks[0]]["model"], document["models"][ranks[-1]]["model"])
        weak = None if ratio is None else round(strong * ratio)
    return strong_tasks, strong, weak


def _price_ratio(one: str, other: str) -> float | None:
    """List prices of one model over another's, input and output taken together; None where one is unknown."""
    rows = Model.objects.filter(name__in=(one, other)).values_list(
        "name", "input_nusd_per_mtok", "output_nusd_per_mtok"
    )
    prices = {name: tokens_in + tokens_out for name, tokens_in, tokens_out in rows}
    return prices[one] / prices[other] if one in prices and prices.get(other) else None


def _arm(sums: Counts) -> ArmSums:
    shared: Sequence[str] = (
        "tasks", "successes", "failures", "errors", "escalations", "fallbacks", "retries", "cost_n",
        "quality_n",
    )  # fmt: skip
    same: Iterable[tuple[str, Any]] = ((name, sums[name]) for name in shared)
    return ArmSums(**dict(same), cost=sums["cost_sum"], quality=sums["quality_sum"])
