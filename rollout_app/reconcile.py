"""Look once at a rollout: evidence, decision, at most one action. Any number of lookers may look at once.

A look is a list of early returns. It takes in the strata that closed since the last one, keeps what it saw
(guarded by a compare-and-swap, so that of two lookers one keeps and the other's work is dropped), and does
what `decide` says through the same actions as people use. What it leaves undone, by a crash or a lost race,
the next look does.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Max, Q

from controlplane import clock
from controlplane.actors import SYSTEM
from controlplane.errors import Conflict, RolloutMoved
from policies_app import fleet
from policies_app.models import Environment
from rollout_app import actions, totals
from rollout_app.decide import Advance, Complete, Decision, Evidence, Hold, RollBack, decide
from rollout_app.evidence import FleetView, MirrorSums, Reference, RolloutView, ShadowSums, Stage
from rollout_app.guardrails import Guardrail
from rollout_app.ledger import Judgement, Ledger
from rollout_app.models import ArmTotals, Rollout, Verdict
from rollout_app.reference import MIN_OUTCOMES
from rollout_app.states import State
from rollout_app.strata import closes_before

logger = logging.getLogger(__name__)

READBACK_FOR = timedelta(minutes=10)  # then a rollback ends with the stragglers named
# How long a rollout is left alone when nothing came in: what only time or the fleet changes is seen so late.
SOON, LATER = timedelta(seconds=2), timedelta(seconds=60)
ARRIVALS = timedelta(minutes=3)  # a nudge that was lost is made up for within this


def reconcile(rollout_id: UUID | str, *, now: datetime | None = None) -> str:
    """One look; returns what came of it in a word: `advance`, `hold`, `roll_back`, … or `idle`."""
    rollout = (
        Rollout.objects.select_related("environment", "workload", "baseline", "candidate")
        .filter(pk=rollout_id)
        .first()
    )
    if rollout is None:
        return "idle"
    now = now or clock.now()
    try:
        match State(rollout.state):
            case State.SCHEDULED:
                return _start_when_due(rollout, now)
            case State.ROLLING_BACK:
                return _read_back(rollout, now)
            case State.RUNNING | State.PAUSED:
                return _judge(rollout, now)
            case _:
                return "idle"
    except RolloutMoved:
        return "moved"  # another looker or a person was first; what they did gets its own look


def _start_when_due(rollout: Rollout, now: datetime) -> str:
    if rollout.scheduled_for is None or now < rollout.scheduled_for:
        return "idle"
    try:
        actions.start_rollout(
            rollout, actor=SYSTEM, reason=f"Scheduled for {rollout.scheduled_for:%Y-%m-%d %H:%M} UTC."
        )
    except RolloutMoved:
        raise
    except Conflict as error:
        return _hold(rollout, now, error.code, error.detail)
    return "start"


def _read_back(rollout: Rollout, now: datetime) -> str:
    seen = fleet.view(rollout.environment, rollout.rollback_revision or 0)
    began = rollout.rolling_back_at or now
    readback = {"confirmed": seen.confirmed, "of": seen.of, "stragglers": list(seen.stragglers)}
    if seen.confirmed < seen.of and now - began < READBACK_FOR:
        _write(rollout, readback=readback, looked_at=now, wake_at=now + SOON)
        return "hold"
    missing = f"; without word of {', '.join(seen.stragglers)}" if seen.stragglers else ""
    waited = "" if seen.confirmed >= seen.of else "10 minutes have passed:"
    counted = f"{seen.confirmed} of {seen.of} routers confirmed revision {rollout.rollback_revision}"
    reason = f"{waited} {counted}{missing}.".strip()
    actions.confirm_rolled_back(rollout, actor=SYSTEM, reason=reason, readback=readback)
    return "confirm"


# --- the evidence --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """What one look saw."""

    reference: Reference
    ledger: Ledger
    judgement: Judgement
    evidence: Evidence
    is_new: bool  # strata closed, or the reference was frozen: there is something to keep


def _judge(rollout: Rollout, now: datetime) -> str:
    seen = _look(rollout, now)
    decision = decide(_view(rollout, now), seen.evidence, _fleet(rollout), now)
    if seen.is_new and not _keep(rollout, seen, now):
        return "moved"
    return _act(rollout, decision, seen, now)


def _look(rollout: Rollout, now: datetime) -> _Seen:
    newest, received = totals.newest(rollout)
    reference, frozen_now = _reference(rollout, newest, now)
    stages = tuple(Stage.from_dict(stage) for stage in rollout.stages)
    if rollout.evidence and not frozen_now:
        ledger = Ledger.from_dict(rollout.evidence)
    else:
        guardrails = tuple(Guardrail.from_dict(kept) for kept in rollout.guardrails)
        ledger = Ledger.open(guardrails, stages, reference)
    before, taken = 0, False
    if newest is not None and received is not None:
        before = closes_before(
            now=now,
            lag_s=rollout.workload.outcome_lag_s,
            newest_minute=totals.minute_of(newest),
            last_received_at=received,
        )
        rows = totals.minute_rows(rollout, reference, ledger.cursors, before)
        taken = bool(ledger.take(rows, before=before))
    judgement = ledger.judge(rollout.stage)
    in_shadow = stages[rollout.stage].mode == "shadow"  # later on nobody decides on it
    shadow, mirror = totals.shadow_and_mirror(rollout) if in_shadow else (ShadowSums(), MirrorSums())
    evidence = Evidence(
        judgement=judgement,
        reference=reference,
        telemetry=totals.telemetry(rollout, before, received),
        baseline_last_hour=totals.baseline_last_hour(rollout, newest or now),
        shadow=shadow,
        mirror=mirror,
    )
    return _Seen(reference, ledger, judgement, evidence, is_new=taken or frozen_now)


def _reference(rollout: Rollout, newest: datetime | None, now: datetime) -> tuple[Reference, bool]:
    """The frozen reference, or one measured again as long as it rests on too little; and whether it is new.

    Reopening the ledger over it loses nothing: every minute of the rollout is read again.
    """
    kept = Reference.from_dict(rollout.reference) if rollout.reference else Reference(outcomes=0)
    if kept.outcomes >= MIN_OUTCOMES or newest is None:
        return kept, False
    measured = totals.reference(rollout, now)
    return (measured, True) if measured.outcomes >= MIN_OUTCOMES else (kept, False)


def _view(rollout: Rollout, now: datetime) -> RolloutView:
    stages = tuple(Stage.from_dict(stage) for stage in rollout.stages)
    following = rollout.stage + 1
    asks = following < len(stages) and stages[following].approval
    paused = rollout.paused_s + ((now - rollout.paused_at).total_seconds() if rollout.paused_at else 0.0)
    return RolloutView(
        state=State(rollout.state),
        stages=stages,
        stage=rollout.stage,
        stage_entered_at=rollout.stage_entered_at or now,
        paused_seconds=paused,
        next_stage_approved=asks and actions.standing_approval(rollout, following) is not None,
        freeze=_freeze(rollout.environment, now),
    )


def _freeze(environment: Environment, now: datetime) -> str | None:
    until = environment.frozen_until
    if until is None or until <= now:
        return None
    name = f"the freeze '{environment.freeze_reason}'" if environment.freeze_reason else "a freeze"
    return f"{name} until {until:%Y-%m-%d %H:%M} UTC"


def _fleet(rollout: Rollout) -> FleetView:
    revision = (
        rollout.transitions.filter(revision__isnull=False).values_list("revision", flat=True).last() or 0
    )
    seen = fleet.view(rollout.environment, revision)
    refused = tuple(str(no) for no in seen.rejected if no.digest == rollout.candidate.digest)
    return FleetView(routers=seen.of, applied=seen.confirmed, rejected=refused)


# --- what comes of it ----------------------------------------------------------------------------------


def _keep(rollout: Rollout, seen: _Seen, now: datetime) -> bool:
    """Keep the look, unless the rollout moved or another looker kept its own first."""
    look = rollout.looks + 1
    kept = {"evidence": seen.ledger.as_dict(), "reference": seen.reference.as_dict(), "looks": look}
    with transaction.atomic():
        mine = Rollout.objects.filter(pk=rollout.pk, version=rollout.version, looks=rollout.looks)
        if not mine.update(**kept, looked_at=now):
            return False
        Verdict.objects.bulk_create(
            Verdict(
                rollout=rollout,
                stage=rollout.stage,
                look=look,
                guardrail=verdict.name,
                verdict=verdict.result,
                data=verdict.as_dict(),
                at=now,
            )
            for verdict in seen.judgement.verdicts
        )
    for name, value in kept.items():
        setattr(rollout, name, value)
    return True


def _act(rollout: Rollout, decision: Decision, seen: _Seen, now: datetime) -> str:
    if isinstance(decision, Hold):
        return _hold(rollout, now, decision.reason.code, decision.reason.sentence, decision.outlook)
    evidence = {
        "look": rollout.looks,
        "judgement": seen.judgement.as_dict(),
        "telemetry": _plain(asdict(seen.evidence.telemetry)),
    }
    try:
        match decision:
            case Advance():
                actions.advance_rollout(rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence)
                return "advance"
            case Complete():
                actions.complete_rollout(rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence)
                return "complete"
            case RollBack():
                evidence["code"] = decision.code
                actions.roll_back_rollout(rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence)
                return "roll_back"
    except RolloutMoved:
        raise
    except Conflict as error:  # a freeze, a pin, an approval voided since the evidence was read
        return _hold(rollout, now, error.code, error.detail)


def _hold(rollout: Rollout, now: datetime, code: str, sentence: str, outlook: str = "") -> str:
    _write(
        rollout,
        hold_code=code,
        hold_sentence=sentence,
        outlook=outlook,
        looked_at=now,
        wake_at=_wake_at(rollout, now, code),
    )
    return "hold"


def _wake_at(rollout: Rollout, now: datetime, code: str) -> datetime:
    """When to look again though nothing came in: the fleet soon, the stage's shortest time to the second."""
    later = now + (SOON if code == "fleet" else LATER)
    if rollout.stage_entered_at is None or rollout.paused_at is not None:
        return later
    minutes = Stage.from_dict(rollout.stages[rollout.stage]).min_minutes
    done = rollout.stage_entered_at + timedelta(minutes=minutes, seconds=rollout.paused_s)
    return min(done, later) if done > now else later


def _write(rollout: Rollout, **values: Any) -> None:
    """What the page shows, unless the rollout has moved on."""
    Rollout.objects.filter(pk=rollout.pk, version=rollout.version).update(**values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }


# --- all of them ---------------------------------------------------------------------------------------


def sweep(*, now: datetime | None = None) -> dict[str, int]:
    """Look at every rollout that could move; how often each word came back. An error costs its look only.

    One query finds what came in of late, one the rollouts: those that nothing came in for, and that are not
    due by time, cost nothing more.
    """
    now = now or clock.now()
    arrived = dict(
        ArmTotals.objects.filter(received_at__gte=now - ARRIVALS)
        .exclude(rollout="")
        .values_list("rollout")
        .annotate(Max("received_at"))
    )
    counts: dict[str, int] = {}
    for pk, wake_at, looked_at in _could_move(now):
        came_in = arrived.get(str(pk))
        is_new = came_in is not None and (looked_at is None or came_in > looked_at)
        word = look_safely(pk) if is_new or wake_at is None or wake_at <= now else "rest"
        counts[word] = counts.get(word, 0) + 1
    return counts


def _could_move(now: datetime) -> list[tuple[UUID, datetime | None, datetime | None]]:
    due = Rollout.objects.filter(
        Q(state__in=[State.RUNNING, State.PAUSED, State.ROLLING_BACK])
        | Q(state=State.SCHEDULED, scheduled_for__lte=now)
    )
    return list(due.order_by("pk").values_list("pk", "wake_at", "looked_at"))


def look_safely(rollout_id: UUID | str) -> str:
    """`reconcile`, with its error logged: one rollout's bad data must not keep the others from their look."""
    try:
        return reconcile(rollout_id)
    except Exception:
        logger.exception("the look at rollout %s failed; the next sweep repeats it", rollout_id)
        return "error"
