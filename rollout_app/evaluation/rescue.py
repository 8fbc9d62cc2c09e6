"""When an evaluation fails: roll the candidate back if harm can still be shown.

First by failures alone (`engine.rescue`), which needs only task counts even if the rest of the minutes is unreadable.
Then, if the rollout could not be evaluated at all, by every guardrail, with all its minutes read again.
"""

import logging
import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from controlplane.core.actors import SYSTEM
from controlplane.core.errors import RolloutMoved
from pointsman.plurals import counted
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import ArmSums, MinuteRow, Stage
from rollout_app.engine.explain import evidence_of, harm_of
from rollout_app.engine.guarded import for_display
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.measures.base import DEFAULT, RESTARTS
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.rescue import PART, PlainHarm, PlainMinute, failures_alone
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, missing_breach
from rollout_app.engine.windows import closes_before
from rollout_app.evaluation.evaluations import as_json, whole_rollout
from rollout_app.evaluation.judging import LATER
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import minute_totals, stored_sums

logger = logging.getLogger(__name__)
_Read = Callable[[Rollout, Reference, int], list[MinuteRow]]
# Without differing tasks and slices, the remaining parts weigh more. No part may count for more than in a
# complete evaluation, so that this check adds nothing to the false alarm rate.
_PLAIN_ROLL_BACK = LOG_ROLL_BACK + math.log((1 - RESTARTS * DEFAULT.restart) / PART)
_COUNTS = ("arm", "stage", "minute", "tasks", "successes", "failures", "tracked", "decided", "received_at")


def roll_back_if_failing(pk: UUID | str, now: datetime, error: Exception, *, anew: bool) -> bool:
    """Roll back if the candidate's failures alone show harm, or its outcomes are missing. Return whether it did.

    With `anew`, also roll back if any guardrail shows harm in minutes that are read again. That reads all of them, so
    it runs at most once a minute.
    """
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
            f"{failed} {harm.failures:,} of {counted(harm.tasks, 'graded candidate task')} failed: "
            f"{harm.difference * 100:+.1f} points compared with the baseline of the same minutes."
        )
        return _roll_back(rollout, reason, {"code": "guardrail", "failures_alone": harm.as_dict()})
    heard = minute_totals.telemetry(str(rollout.pk), before, received)
    if missing_breach(heard.candidate_decisions, heard.candidate_outcomes):
        reason = f"{failed} {heard.candidate_decisions} tasks were decided for the candidate and none of them finished."
        return _roll_back(rollout, reason, {"code": "telemetry"})
    if anew and not _asked_lately(rollout, now):
        if judgement := _judged_anew(rollout, before):
            evidence = msgspec.json.decode(as_json({"code": "guardrail", "judgement": judgement.as_dict()}))
            return _roll_back(rollout, f"{failed} {_harm_in_words(rollout, judgement)}", evidence)
        Rollout.objects.filter(pk=rollout.pk, version=rollout.version).update(wake_at=now + LATER)
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
    # Decisions count only in minutes in which all routers of both arms report theirs.
    partly = {_place(row) for row in rows if row["tracked"] < row["tasks"]}
    minutes = [
        minute
        for row in rows
        if row["stage"] in compared and (minute := _minute(row, _place(row) not in partly)).minute < before
    ]  # fmt: skip
    sticky = rollout.workload.unit != Workload.Unit.REQUEST
    deff = float((rollout.reference or {}).get("deff") or 1.0)
    harm = failures_alone(_joined(minutes), weight=guardrail["weight"], deff=max(1.0, deff), sticky=sticky)
    return harm if harm and harm.reaches(guardrail["margin"]) else None


def _place(row: Mapping[str, Any]) -> tuple[int, datetime]:
    return row["stage"], row["minute"]


def _minute(row: Mapping[str, Any], decisions_are_known: bool) -> PlainMinute:
    """Return one arm's minute. Decided tasks that were never reported have no grade either."""
    graded, failed = row["successes"] + row["failures"], row["failures"]
    tasks = max(row["tasks"], row["decided"] if decisions_are_known else 0)
    ungraded = max(0, tasks - graded)
    at = minute_totals.minute_of(row["minute"])
    if row["arm"] == "candidate":
        return PlainMinute(row["stage"], at, nt=graded, xt=failed, ungraded_t=ungraded)
    return PlainMinute(row["stage"], at, nc=graded, xc=failed, ungraded_c=ungraded)


def _joined(minutes: list[PlainMinute]) -> list[PlainMinute]:
    """Merge both arms of each minute."""
    total: dict[tuple[int, int], PlainMinute] = {}
    for one in minutes:
        key = one.stage, one.minute
        total[key] = total[key].with_more(one) if key in total else one
    return list(total.values())


# --- every guardrail, from minutes that are read again ----------------------------------------------------


def _asked_lately(rollout: Rollout, now: datetime) -> bool:
    return rollout.hold_code == "evaluation_failed" and rollout.wake_at is not None and rollout.wake_at > now


def _judged_anew(rollout: Rollout, before: int) -> Judgement | None:
    """Return the judgement of all minutes if it shows harm. Falls back to counts and costs if the rest is
    unreadable.
    """
    for read, least in ((_whole_minutes, LOG_ROLL_BACK), (_plain_minutes, _PLAIN_ROLL_BACK)):
        try:
            judgement = _judgement(rollout, read, before)
        except Exception:
            logger.exception("rollout %s could not be judged again by %s", rollout.pk, read.__name__)
        else:
            return judgement if judgement.log_e >= least else None
    return None


def _judgement(rollout: Rollout, read: _Read, before: int) -> Judgement:
    reference = Reference.from_dict(rollout.reference or {"outcomes": 0})
    guardrails, stages = map(Guardrail.from_dict, rollout.guardrails), map(Stage.from_dict, rollout.stages)
    accumulator = Accumulator.open(guardrails, stages, reference)
    accumulator.take(read(rollout, reference, before), before=before)
    return accumulator.judge(rollout.stage, forecast=False, detail=False)


def _whole_minutes(rollout: Rollout, reference: Reference, before: int) -> list[MinuteRow]:
    return minute_totals.all_minutes(rollout, reference, before)


def _plain_minutes(rollout: Rollout, reference: Reference, before: int) -> list[MinuteRow]:
    """Return counts and costs only. Empty for sticky units, because these figures cannot show harm there."""
    if rollout.workload.unit != Workload.Unit.REQUEST:
        return []
    minutes: dict[tuple[int, int], dict[str, ArmSums]] = {}
    rows = ArmTotals.objects.filter(rollout=str(rollout.pk)).exclude(rollout="").order_by()
    for row in rows.values("arm", "stage", "minute", *stored_sums.PLAIN_FIGURES).iterator():
        key = row["stage"], minute_totals.minute_of(row["minute"])
        minutes.setdefault(key, {})[row["arm"]] = stored_sums.plain_sums(row)
    none = ArmSums()
    return [
        MinuteRow(stage, minute, arms.get("candidate", none), arms.get("baseline", none))
        for (stage, minute), arms in sorted(minutes.items())
    ]


def _harm_in_words(rollout: Rollout, judgement: Judgement) -> str:
    worst, stages = judgement.harmful[:3], [Stage.from_dict(stage) for stage in rollout.stages]
    names = ", ".join(verdict.name for verdict in worst)
    said = for_display("the reason", lambda: "; ".join(harm_of(v, stages) for v in worst), f"Harm: {names}")
    return f"{said}. Evidence of harm: {evidence_of(judgement.log_e)} (20 is enough to roll back)."


def _roll_back(rollout: Rollout, reason: str, evidence: dict[str, Any]) -> bool:
    try:
        actions.roll_back_rollout(rollout, actor=SYSTEM, reason=reason, evidence=evidence)
    except RolloutMoved:
        return False  # a person or another process was first
    logger.error("rollout %s was rolled back although its evaluation failed: %s", rollout.pk, reason)
    return True
