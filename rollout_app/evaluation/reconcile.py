"""Evaluate rollouts: load → judge → store → act, at most one action each. Safe to run twice or in many processes.

An evaluation adds the windows that closed since the last one, decides, stores the result with a compare-and-swap (of
two at the same time, one is stored and the other dropped), and acts through the same actions that people use. The
next evaluation completes what a crash or a lost race leaves undone.

The same code evaluates one rollout after a nudge and ten thousand in a sweep, in batches.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from controlplane.core import clock, heartbeats, schedule
from controlplane.core.actors import SYSTEM
from controlplane.core.bulk import chunks
from controlplane.core.errors import Conflict, RolloutMoved
from policies_app.fleet.listening import SKEW
from rollout_app import actions
from rollout_app.engine.decide import Advance, Complete, Hold, RollBack
from rollout_app.engine.states import State
from rollout_app.evaluation import evaluations, judging, rescue
from rollout_app.evaluation.clock_repair import is_ahead, set_back
from rollout_app.evaluation.evaluations import Evaluation, Subject, whole_rollout
from rollout_app.evaluation.judging import LATER, SOON, Fleets
from rollout_app.evaluation.readbacks import confirm_when_followed
from rollout_app.models import Rollout

logger = logging.getLogger(__name__)


class EvaluationIncomplete(Exception):
    """Part of the evidence could not be computed; the log has the details."""


BETWEEN_HEARTBEATS = 2_000  # rollouts: a few seconds of work
BATCH = 200  # rollouts per load and transaction, which holds SQLite's writer for about 50 ms


def reconcile(rollout_id: UUID | str, *, now: datetime | None = None) -> str:
    """Evaluate one rollout. Return the result as a word: `advance`, `hold`, `roll_back`, … or `idle`."""
    return _evaluate_batch([rollout_id], now or clock.now(), Fleets()).get(str(rollout_id), "idle")


def evaluate(
    ids: Iterable[UUID | str], *, now: datetime | None = None, fleets: Fleets | None = None
) -> list[str]:
    """Evaluate each rollout, in batches. Return the results in no particular order. Bad data of one must not stop
    others.
    """
    fleets = fleets or Fleets()
    words: list[str] = []
    for some in chunks(list(ids), BATCH):
        words += _evaluate_or_halve(some, now, fleets)
    return words


def sweep(*, now: datetime | None = None) -> dict[str, int]:
    """Evaluate every rollout that could move. Return how often each result occurred.

    One query finds them all. A rollout without new outcomes that is not due yet costs nothing more.
    """
    due, words = [], []
    began = now or clock.now()
    for pk, wake_at, evaluated_at, received in evaluations.could_move(began):
        is_new = received is not None and (evaluated_at is None or received > evaluated_at)
        # No rollout is due later than LATER; a wake time beyond that comes from a wrong clock.
        if is_new or wake_at is None or not began < wake_at <= began + LATER + SKEW:
            due.append(pk)
        else:
            words.append("rest")
    fleets = Fleets()
    for some in chunks(due, BETWEEN_HEARTBEATS):
        if words:
            heartbeats.beat(schedule.ENGINE)  # a sweep that takes a minute is still alive
        words += evaluate(some, now=now, fleets=fleets)
    return {word: words.count(word) for word in dict.fromkeys(words)}


def _evaluate_or_halve(ids: Sequence[UUID | str], now: datetime | None, fleets: Fleets) -> list[str]:
    """Evaluate a batch. If it fails, split it in halves down to the rollout at fault; evaluating twice is safe."""
    try:
        return list(_evaluate_batch(ids, now or clock.now(), fleets).values())
    except Exception as error:
        if len(ids) == 1:
            return [_failed(ids[0], error, now or clock.now())]
    half = len(ids) // 2
    return [*_evaluate_or_halve(ids[:half], now, fleets), *_evaluate_or_halve(ids[half:], now, fleets)]


def _failed(pk: UUID | str, error: Exception, now: datetime) -> str:
    """Handle an evaluation that raised: roll back if harm can still be shown, otherwise hold."""
    logger.error("the evaluation of rollout %s failed; the next sweep repeats it", pk, exc_info=error)
    try:
        if rescue.roll_back_if_failing(pk, now, error, anew=True):
            return "roll_back"
    except Exception:
        logger.exception("rollout %s could not be judged from partial evidence either", pk)
    _hold_failed(pk, error)
    return "error"


def _hold_failed(pk: UUID | str, error: Exception) -> None:
    """Mark the rollout as not evaluated. Nothing advances until an evaluation succeeds."""
    try:
        moving = Rollout.objects.filter(pk=pk, state__in=[State.RUNNING, State.PAUSED])
        moving.update(
            hold_code="evaluation_failed",
            hold_sentence=f"The evaluation failed ({type(error).__name__}). Nothing advances until one succeeds; "
            "the log has the details.",
            outlook="",
        )
    except Exception:
        logger.exception("rollout %s could not be marked as failing", pk)


def _evaluate_batch(ids: Sequence[UUID | str], now: datetime, fleets: Fleets) -> dict[str, str]:
    words: dict[str, str] = {}
    with_evidence = []
    for subject in evaluations.load(ids):
        if is_ahead(now, subject.stage_entered_at, subject.paused_at) and set_back(
            whole_rollout(subject.pk), now
        ):
            words[subject.name] = "clock"  # the next evaluation finds the corrected times
            continue
        match subject.state:
            case State.RUNNING | State.PAUSED:
                with_evidence.append(subject)
            case State.SCHEDULED | State.ROLLING_BACK:
                words[subject.name] = _move_without_evidence(subject, now)
            case _:
                words[subject.name] = "idle"
    judged, failed = judging.judge(with_evidence, now, fleets)
    for subject, error in failed:
        words[subject.name] = _failed(subject.pk, error, now)
    stored = evaluations.store(judged, now)
    for evaluation in judged:
        subject = evaluation.subject
        words[subject.name] = _act(evaluation, now) if subject.pk in stored else "moved"
    return words


# --- moves that need no evidence -------------------------------------------------------------------------


def _move_without_evidence(subject: Subject, now: datetime) -> str:
    rollout = whole_rollout(subject.pk)
    try:
        if rollout.state == State.SCHEDULED:
            return _start_when_due(rollout, now)
        return _read_back(rollout, now) if rollout.state == State.ROLLING_BACK else "moved"
    except RolloutMoved:
        return "moved"  # another process or a person was first; that move gets its own evaluation


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
    if set_back(rollout, now):
        return "clock"
    readback = confirm_when_followed(rollout, now)
    if readback is None:
        return "confirm"
    _update(rollout, readback=readback.as_dict(), evaluated_at=now, wake_at=now + SOON)
    return "hold"


# --- act on the decision ---------------------------------------------------------------------------------


def _act(evaluation: Evaluation, now: datetime) -> str:
    """Carry out the decision. A hold was already stored with the evaluation."""
    decision = evaluation.decision
    if isinstance(decision, Hold):
        return _rescued(evaluation, now) if evaluation.broken else "hold"
    rollout = whole_rollout(evaluation.subject.pk)
    if (rollout.version, rollout.evaluations) != (evaluation.subject.version, evaluation.number):
        return "moved"
    evidence: dict[str, Any] = {"evaluation": rollout.evaluations, **(evaluation.evidence or {})}
    try:
        match decision:
            case Advance():
                actions.advance_rollout(
                    rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence, to=decision.to
                )
                return "advance"
            case Complete():
                actions.complete_rollout(rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence)
                return "complete"
            case RollBack():
                evidence["code"] = decision.code
                actions.roll_back_rollout(rollout, actor=SYSTEM, reason=decision.reason, evidence=evidence)
                return "roll_back"
    except RolloutMoved:
        return "moved"  # another process or a person was first; that move gets its own evaluation
    except Conflict as error:  # a freeze, a pin, a disabled model or a voided approval in the meantime
        return _hold(rollout, now, error.code, error.detail)


def _rescued(evaluation: Evaluation, now: datetime) -> str:
    """Judge by failures alone, because part of the evidence could not be computed and the rest does not show harm."""
    pk = evaluation.subject.pk
    try:
        error = EvaluationIncomplete("; ".join(evaluation.broken))
        return "roll_back" if rescue.roll_back_if_failing(pk, now, error, anew=False) else "hold"
    except Exception:
        logger.exception("rollout %s could not be judged by its failures alone", pk)
        return "hold"


def _hold(rollout: Rollout, now: datetime, code: str, sentence: str) -> str:
    _update(
        rollout,
        hold_code=code,
        hold_sentence=sentence,
        outlook="",
        evaluated_at=now,
        wake_at=now + LATER,
    )
    return "hold"


def _update(rollout: Rollout, **values: Any) -> None:
    """Update what the page shows, unless the rollout has moved since."""
    Rollout.objects.filter(pk=rollout.pk, version=rollout.version).update(**values)
