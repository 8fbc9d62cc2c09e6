"""Where an evaluation can't be finished: harm that plain failures show still rolls the candidate back.

Reads only counts of tasks, whatever else of the minutes can't be read, and asks `engine.rescue`.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.core.actors import SYSTEM
from controlplane.core.errors import RolloutMoved
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.engine.metrics import Metric
from rollout_app.engine.rescue import PlainHarm, PlainMinute, failures_alone
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import missing_breach
from rollout_app.engine.windows import closes_before
from rollout_app.evaluation.evaluations import whole_rollout
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import minute_totals

logger = logging.getLogger(__name__)
_COUNTS = ("arm", "stage", "minute", "tasks", "successes", "failures", "received_at")


def roll_back_if_failing(pk: UUID | str, now: datetime, error: Exception) -> bool:
    """Roll back if the candidate's failures alone show harm, or nothing of it is heard; whether it did."""
    rollout = whole_rollout(UUID(str(pk)))
    if (
        rollout.state not in (State.RUNNING, State.PAUSED)
        or rollout.stages[rollout.stage]["mode"] == "shadow"
    ):
        return False
    rows = list(_rows(rollout))
    if not rows:
        return False
    received = max(row["received_at"] for row in rows)
    newest = max(minute_totals.minute_of(row["minute"]) for row in rows)
    lag_s = rollout.workload.outcome_lag_s
    before = closes_before(now=now, lag_s=lag_s, newest_minute=newest, last_received_at=received)
    failed = f"The evaluation failed ({type(error).__name__}), and what could still be counted shows harm."
    if harm := _harm(rollout, rows, before):
        reason = (
            f"{failed} {harm.failures:,} of {harm.tasks:,} graded candidate tasks failed: "
            f"{harm.difference * 100:+.1f} points against the baseline of the same minutes."
        )
        return _roll_back(rollout, reason, {"code": "guardrail", "failures_alone": harm.as_dict()})
    heard = minute_totals.telemetry(str(rollout.pk), before, received)
    if missing_breach(heard.candidate_decisions, heard.candidate_outcomes):
        reason = (
            f"{failed} {heard.candidate_decisions} tasks were decided for the candidate and none is finished."
        )
        return _roll_back(rollout, reason, {"code": "telemetry"})
    return False


def _rows(rollout: Rollout) -> Any:
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk)).exclude(rollout="").order_by()
    return rows.values(*_COUNTS).iterator()


def _harm(rollout: Rollout, rows: list[Mapping[str, Any]], before: int) -> PlainHarm | None:
    compared_ones = (one for one in rollout.guardrails if one.get("bound") is None)
    guardrail = next((one for one in compared_ones if one["metric"] == Metric.FAILURE), None)
    if guardrail is None:
        return None
    compared = {at for at, stage in enumerate(rollout.stages) if stage["mode"] == "percentage"}
    minutes = [
        minute
        for row in rows
        if row["stage"] in compared and (minute := _minute(row)).minute < before
    ]  # fmt: skip
    sticky = rollout.workload.unit != Workload.Unit.REQUEST
    deff = float((rollout.reference or {}).get("deff") or 1.0)
    harm = failures_alone(_joined(minutes), weight=guardrail["weight"], deff=max(1.0, deff), sticky=sticky)
    return harm if harm and harm.reaches(guardrail["margin"]) else None


def _minute(row: Mapping[str, Any]) -> PlainMinute:
    graded, failed = row["successes"] + row["failures"], row["failures"]
    ungraded = max(0, row["tasks"] - graded)
    at = minute_totals.minute_of(row["minute"])
    if row["arm"] == "candidate":
        return PlainMinute(row["stage"], at, nt=graded, xt=failed, ungraded_t=ungraded)
    return PlainMinute(row["stage"], at, nc=graded, xc=failed, ungraded_c=ungraded)


def _joined(minutes: list[PlainMinute]) -> list[PlainMinute]:
    """Both arms of each minute side by side."""
    total: dict[tuple[int, int], PlainMinute] = {}
    for one in minutes:
        key = one.stage, one.minute
        total[key] = total[key].with_more(one) if key in total else one
    return list(total.values())


def _roll_back(rollout: Rollout, reason: str, evidence: dict[str, Any]) -> bool:
    try:
        actions.roll_back_rollout(rollout, actor=SYSTEM, reason=reason, evidence=evidence)
    except RolloutMoved:
        return False  # a person or another process was first
    logger.error("rollout %s was rolled back although its evaluation failed: %s", rollout.pk, reason)
    return True
