"""Limit what mirrored tasks may cost: in the shadow stage, a share of tasks also runs on the candidate's model.

A workload's `mirror_budget_usd` is the limit of one rollout per day (UTC). Routers report the cost. When the budget is
spent, a new revision sets the rollout's mirror share to 0 for all routers until the next day. Another rollout of the
same workload on the same day has the full budget again.
"""

import logging
from dataclasses import dataclass
from datetime import datetime

from controlplane.audit import log
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.errors import RolloutMoved
from controlplane.web.display import money
from policies_app.actions import served_assignment
from rollout_app.actions.transitions import audited_transaction, lock_unmoved, place, serve_now, serving_stage
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import State
from rollout_app.models import ArmTotals, Rollout

logger = logging.getLogger(__name__)

LEAST_UNPRICED = 50  # mirrored tasks of a day: if none of them has a cost, no budget can be enforced
_NUSD = 10**9


@dataclass(frozen=True, slots=True)
class MirrorDay:
    """The mirrored tasks of one rollout today and their cost, as reported so far."""

    tasks: int = 0
    spent_nusd: int = 0

    @property
    def is_priced(self) -> bool:
        return self.spent_nusd > 0 or self.tasks < LEAST_UNPRICED


def mirror_day(rollout: Rollout, now: datetime) -> MirrorDay:
    """Add up the mirrored tasks of the UTC day that contains `now`."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rows = ArmTotals.of_rollout(rollout).filter(stage=rollout.stage, minute__gte=midnight)
    tasks = spent = 0
    for mirror in rows.exclude(mirror={}).values_list("mirror", flat=True).iterator():
        tasks += mirror.get("n", 0)
        spent += mirror.get("candidate_cost_nusd", 0)
    return MirrorDay(tasks, spent)


def keep_mirror_budgets(now: datetime | None = None) -> int:
    """Stop mirrors whose budget is spent and restart stopped ones on a new day. Return how many changed."""
    now, changed = now or clock.now(), 0
    rows = Rollout.objects.filter(
        state__in=[State.RUNNING, State.PAUSED], workload__mirror_budget_usd__isnull=False
    ).select_related("environment", "workload", "baseline", "candidate")
    for rollout in rows.defer("evidence"):
        try:
            if Stage.from_dict(rollout.stages[rollout.stage]).mirror_pcm:
                changed += _keep(rollout, now)
        except RolloutMoved:
            pass  # the next run looks again
        except Exception:  # the budgets of the other rollouts must be kept
            logger.exception("the mirror budget of rollout %s could not be checked", rollout.pk)
    return changed


def _keep(rollout: Rollout, now: datetime) -> bool:
    budget = round((rollout.workload.mirror_budget_usd or 0) * _NUSD)
    day = mirror_day(rollout, now)
    stop = day.spent_nusd >= budget or not day.is_priced
    if stop == (_mirrors(rollout) == 0):
        return False
    return _serve(rollout, _reason(day, budget, stop), stop, day)


def _mirrors(rollout: Rollout) -> int:
    return served_assignment(rollout.environment_id, rollout.workload_id).mirror_pcm


def _serve(rollout: Rollout, reason: str, stop: bool, day: MirrorDay) -> bool:
    serve = serving_stage(rollout, rollout.stage)
    serve["mirror_pcm"] = 0 if stop else serve["mirror_pcm"]
    with audited_transaction(rollout, "rollout.mirrors", actor=SYSTEM, reason=reason) as reason:
        lock_unmoved(rollout)
        before = {"mirror_pcm": _mirrors(rollout)}  # another run may have acted since
        if before["mirror_pcm"] == serve["mirror_pcm"]:
            return False
        revision = serve_now(rollout, "rollout.mirrors", serve)
        log.record(
            actor=SYSTEM,
            action="rollout.mirrors",
            reason=reason,
            before=before,
            after={"mirror_pcm": serve["mirror_pcm"], "served_at": revision},
            evidence={"mirrored": day.tasks, "spent_nusd": day.spent_nusd},
            **place(rollout),
        )
    return True


def _reason(day: MirrorDay, budget: int, stop: bool) -> str:
    if not stop:
        return f"Mirrors run again: {money(day.spent_nusd)} of {money(budget)} spent today."
    if not day.is_priced:
        return (
            f"Mirrors stopped: none of today's {day.tasks:,} mirrored tasks has a cost, so no budget can be "
            "enforced."
        )
    return f"Mirrors stopped until tomorrow: {money(day.spent_nusd)} of today's {money(budget)} budget spent."
