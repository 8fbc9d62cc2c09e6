"""Look once at rollouts: evidence, decision, at most one action each. Any number of lookers may look at once.

A look takes in the strata that closed since the last one, decides, keeps what it saw (guarded by a
compare-and-swap, so that of two lookers one keeps and the other's work is dropped), and does what was decided
through the same actions as people use. What it leaves undone, by a crash or a lost race, the next look does.

One rollout after a nudge, or ten thousand in a sweep: the same code, in batches of one or of many. `looks`
reads and keeps for a batch; only the few that act are taken one by one.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from controlplane.core.bulk import chunks
from controlplane.core.errors import Conflict, RolloutMoved
from policies_app.fleet import readback
from policies_app.models import Environment
from rollout_app import actions
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.calibration import MIN_OUTCOMES
from rollout_app.engine.decide import Advance, Complete, Decision, Evidence, Hold, RollBack, decide
from rollout_app.engine.evidence import ArmSums, FleetView, MinuteRow, RolloutView, Stage, Telemetry
from rollout_app.engine.states import State
from rollout_app.engine.stats.combine import missing_breach
from rollout_app.engine.windows import closes_before
from rollout_app.evaluation import evaluations
from rollout_app.evaluation.evaluations import Kept, Look, Subject
from rollout_app.models import Rollout
from rollout_app.outcomes import minute_totals

logger = logging.getLogger(__name__)

READBACK_FOR = timedelta(minutes=10)  # then a rollback ends with the stragglers named
# What a gateway hears is written every few seconds: until then an empty fleet is only one not heard of yet.
HEARD_WITHIN = timedelta(seconds=10)
# How long a rollout is left alone when nothing came in: what only time or the fleet changes is seen so late.
SOON, LATER = timedelta(seconds=2), timedelta(seconds=60)
BATCH = 200  # rollouts read together, and kept in one transaction: some 50 ms in which SQLite has its writer
_MINUTES_OF_HEALTH = 60


@dataclass(slots=True)
class Fleets:
    """The routers of each environment, read once for all the looks of a sweep."""

    _present: dict[int, readback.Present] = field(default_factory=dict)

    def view(self, subject: Subject) -> FleetView:
        present = self._present.get(subject.environment_id)
        if present is None:
            present = self._present[subject.environment_id] = readback.present(subject.environment)
        seen = present.view(subject.revision or 0)
        refused = tuple(str(no) for no in seen.rejected if no.digest == subject.digest)
        return FleetView(routers=seen.of, applied=seen.confirmed, rejected=refused)


def reconcile(rollout_id: UUID | str, *, now: datetime | None = None) -> str:
    """One look; returns what came of it in a word: `advance`, `hold`, `roll_back`, … or `idle`."""
    return _look([rollout_id], now or clock.now(), Fleets()).get(str(rollout_id), "idle")


def look(
    ids: Iterable[UUID | str], *, now: datetime | None = None, fleets: Fleets | None = None
) -> list[str]:
    """A look at each, in batches; the words in no order. One's bad data must not cost the others their look."""
    fleets = fleets or Fleets()
    words: list[str] = []
    for some in chunks(list(ids), BATCH):
        words += _look_safely(some, now, fleets)
    return words


def _look_safely(ids: Sequence[UUID | str], now: datetime | None, fleets: Fleets) -> list[str]:
    """A look may be done twice, so a batch that fails is looked at again in halves, down to the one at fault."""
    try:
        return list(_look(ids, now or clock.now(), fleets).values())
    except Exception:
        if len(ids) == 1:
            logger.exception("the look at rollout %s failed; the next sweep repeats it", ids[0])
            return ["error"]
    half = len(ids) // 2
    return [*_look_safely(ids[:half], now, fleets), *_look_safely(ids[half:], now, fleets)]


def sweep(*, now: datetime | None = None) -> dict[str, int]:
    """Look at every rollout that could move; how often each word came back.

    One query finds them all: those that nothing came in for, and that are not due by time, cost no more.
    """
    due, words = [], []
    began = now or clock.now()
    for pk, wake_at, looked_at, received in evaluations.could_move(began):
        is_new = received is not None and (looked_at is None or received > looked_at)
        if is_new or wake_at is None or wake_at <= began:
            due.append(pk)
        else:
            words.append("rest")
    words += look(due, now=now)
    return {word: words.count(word) for word in dict.fromkeys(words)}


def _look(ids: Sequence[UUID | str], now: datetime, fleets: Fleets) -> dict[str, str]:
    words: dict[str, str] = {}
    judged = []
    for subject in evaluations.read(ids):
        match subject.state:
            case State.RUNNING | State.PAUSED:
                judged.append(subject)
            case State.SCHEDULED | State.ROLLING_BACK:
                words[subject.name] = _by_itself(subject, now)
            case _:
                words[subject.name] = "idle"
    seen = _see(judged, now, fleets)
    kept = evaluations.keep(seen, now)
    for one in seen:
        words[one.subject.name] = _act(one, now) if one.subject.pk in kept else "moved"
    return words


def _by_itself(subject: Subject, now: datetime) -> str:
    rollout = _rollout(subject.pk)
    try:
        if rollout.state == State.SCHEDULED:
            return _start_when_due(rollout, now)
        return _read_back(rollout, now) if rollout.state == State.ROLLING_BACK else "moved"
    except RolloutMoved:
        return "moved"  # another looker or a person was first; what they did gets its own look


def _rollout(pk: UUID) -> Rollout:
    return Rollout.objects.select_related("environment", "workload", "baseline", "candidate").get(pk=pk)


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
    seen = readback.view(rollout.environment, rollout.rollback_revision or 0)
    began = rollout.rolling_back_at or now
    counts = {"confirmed": seen.confirmed, "of": seen.of, "stragglers": list(seen.stragglers)}
    followed = seen.of > 0 and seen.confirmed >= seen.of
    if not followed and now - began < (READBACK_FOR if seen.of else HEARD_WITHIN):
        _write(rollout, readback=counts, looked_at=now, wake_at=now + SOON)
        return "hold"
    reason = _readback_said(seen, rollout.rollback_revision)
    actions.confirm_rolled_back(rollout, actor=SYSTEM, reason=reason, readback=counts)
    return "confirm"


def _readback_said(seen: readback.FleetView, revision: int | None) -> str:
    if not seen.of:
        return f"No router has polled in the last two minutes: nobody had to follow revision {revision}."
    counted = f"{seen.confirmed} of {seen.of} routers confirmed revision {revision}"
    if seen.confirmed >= seen.of:
        return f"{counted}."
    return f"10 minutes have passed: {counted}; without word of {', '.join(seen.stragglers)}."


# --- the evidence --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Opened:
    """A look under way: how far the sums go, and up to which minute they may grow."""

    subject: Subject
    kept: Kept
    frozen_now: bool
    before: int  # Unix minute; 0 as long as nothing came in

    def reading(self) -> minute_totals.Reading:
        """The minutes that no window has taken yet. The shadow gate counts open minutes too."""
        subject, cursors = self.subject, self.kept.cursors
        before = minute_totals.NEVER if subject.plan[subject.stage]["mode"] == "shadow" else self.before
        windows = tuple(
            minute_totals.Window(subject.name, stage, cursors.get(stage, 0), before)
            for stage in range(subject.stage + 1)
        )
        return minute_totals.Reading(self.kept.reference, subject.sticky, windows)

    @property
    def hour(self) -> range:
        """The hour up to the newest stamped minute."""
        newest = self.subject.newest_minute
        end = minute_totals.minute_of(newest) + 1 if newest else 0
        return range(end - _MINUTES_OF_HEALTH, end)

    def young(self) -> list[minute_totals.Window]:
        """The part of the hour that is not due yet, of this stage and the last: of the rest the ledger knows."""
        first, stage = max(self.before, self.hour.start), self.subject.stage
        stages = range(max(0, stage - 1), stage + 1)
        return [minute_totals.Window(self.subject.name, stage, first, self.hour.stop) for stage in stages]


def _see(subjects: Sequence[Subject], now: datetime, fleets: Fleets) -> list[Look]:
    opened = [_open(subject, now) for subject in subjects]
    heard = [one for one in opened if one.subject.newest_minute]
    rows = minute_totals.minute_rows([one.reading() for one in heard])
    young = minute_totals.baseline_sums([window for one in heard for window in one.young()])
    seen = []
    for one in opened:
        name = one.subject.name
        seen.append(_seen(one, rows.get(name, []), young.get(name, ArmSums()), now, fleets))
    return seen


def _open(subject: Subject, now: datetime) -> _Opened:
    kept = subject.kept()
    newest, received = subject.newest_minute, subject.received_at
    if newest is None or received is None:
        return _Opened(subject, kept, False, 0)
    frozen_now = False
    if kept.reference.outcomes < MIN_OUTCOMES:
        # Measured again as long as it rests on too little. Reopening the ledger over it loses nothing: every
        # minute of the rollout is read again.
        measured = minute_totals.reference(_rollout(subject.pk), now)
        if frozen_now := measured.outcomes >= MIN_OUTCOMES:
            kept = Kept(measured, {}, {}, has_sums=False)
    before = closes_before(
        now=now, lag_s=subject.lag_s, newest_minute=minute_totals.minute_of(newest), last_received_at=received
    )
    return _Opened(subject, kept, frozen_now, before)


def _seen(one: _Opened, rows: list[MinuteRow], young: ArmSums, now: datetime, fleets: Fleets) -> Look:
    subject, ledger = one.subject, one.subject.open(one.kept)
    is_new = bool(ledger.take(rows, before=one.before)) or one.frozen_now
    judgement = ledger.judge(subject.stage, detail=False)
    still_open = [row for row in rows if row.minute >= ledger.cursors.get(row.stage, 0)]
    rehearsed = sum((row.rehearsed for row in still_open if row.rehearsed), ledger.rehearsed)
    evidence = Evidence(
        judgement=judgement,
        reference=ledger.reference,
        telemetry=_telemetry(one, ledger, still_open),
        baseline_last_hour=_last_hour(one, ledger, still_open, young),
        shadow=rehearsed.shadow,
        mirror=rehearsed.mirror,
    )
    decision = decide(_view(subject, ledger.stages, now), evidence, fleets.view(subject), now)
    results = {verdict.name: verdict.result.value for verdict in judgement.verdicts}
    look = Look(subject, decision, _wake_at(subject, ledger.stages[subject.stage], decision, now))
    if is_new:
        look.sums = evaluations.as_json(ledger.as_dict() | {"results": results})
        look.reference = ledger.reference.as_dict() if one.frozen_now else None
    acts = not isinstance(decision, Hold)
    # Told when something is done or a verdict is another: a row for each look would be megabytes a day of
    # nothing new, and the sums give the present verdicts at any time (`looks.judged`).
    if acts or (is_new and results != one.kept.results):
        judgement = ledger.detailed(judgement)
        told = [
            (verdict.name, verdict.result.value, evaluations.as_json(verdict))
            for verdict in judgement.verdicts
        ]
        look.verdicts = told if is_new else []
    if acts:
        # With what the verdicts were measured from: it may have been frozen long after the start's own entry.
        look.evidence = {
            "judgement": judgement.as_dict(),
            "reference": ledger.reference.as_dict(),
            "telemetry": _plain(asdict(evidence.telemetry)),
        }
    return look


def _last_hour(one: _Opened, ledger: Accumulator, still_open: list[MinuteRow], young: ArmSums) -> ArmSums:
    """The baseline over the last hour: closed minutes, those that wait for their window, and young ones."""
    waiting = (row.baseline for row in still_open if one.hour.start <= row.minute < one.before)
    return sum(waiting, ledger.baseline_since(one.hour.start)) + young


def _telemetry(one: _Opened, ledger: Accumulator, still_open: list[MinuteRow]) -> Telemetry:
    """Counted from the sums. A late outcome of a judged minute is not in them, so a silence is read in full."""
    tallies = ledger.tallies.values()
    due = sum(row.candidate.tasks for row in still_open if row.minute < one.before)
    graded = sum(row.candidate.successes + row.candidate.failures for row in still_open)
    due += sum(tally.candidate_tasks for tally in tallies)
    graded += sum(tally.candidate_graded for tally in tallies)
    if missing_breach(due, graded):
        return minute_totals.telemetry(one.subject.name, one.before, one.subject.received_at)
    return Telemetry(due, graded, one.subject.received_at)


def _view(subject: Subject, stages: tuple[Stage, ...], now: datetime) -> RolloutView:
    following = subject.stage + 1
    asks = following < len(stages) and stages[following].approval
    paused = subject.paused_s + ((now - subject.paused_at).total_seconds() if subject.paused_at else 0.0)
    return RolloutView(
        state=subject.state,
        stages=stages,
        stage=subject.stage,
        stage_entered_at=subject.stage_entered_at or now,
        paused_seconds=paused,
        next_stage_approved=asks and actions.standing_approval(_rollout(subject.pk), following) is not None,
        freeze=_freeze(subject.environment, now),
    )


def _freeze(environment: Environment, now: datetime) -> str | None:
    until = environment.frozen_until
    if until is None or until <= now:
        return None
    name = f"the freeze '{environment.freeze_reason}'" if environment.freeze_reason else "a freeze"
    return f"{name} until {until:%Y-%m-%d %H:%M} UTC"


def _wake_at(subject: Subject, stage: Stage, decision: Decision, now: datetime) -> datetime:
    """When to look again though nothing came in: the fleet soon, the stage's shortest time to the second."""
    code = decision.reason.code if isinstance(decision, Hold) else ""
    later = now + (SOON if code == "fleet" else LATER)
    if subject.stage_entered_at is None or subject.paused_at is not None:
        return later
    done = subject.stage_entered_at + timedelta(minutes=stage.min_minutes, seconds=subject.paused_s)
    return min(done, later) if done > now else later


# --- what comes of it ----------------------------------------------------------------------------------


def _act(one: Look, now: datetime) -> str:
    """What was decided; a hold is kept with the look itself."""
    decision = one.decision
    if isinstance(decision, Hold):
        return "hold"
    rollout = _rollout(one.subject.pk)
    if (rollout.version, rollout.looks) != (one.subject.version, one.number):
        return "moved"
    evidence = {"look": rollout.looks, **(one.evidence or {})}
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
        return "moved"  # another looker or a person was first; what they did gets its own look
    except Conflict as error:  # a freeze, a pin, an approval voided since the evidence was read
        return _hold(rollout, now, error.code, error.detail)


def _hold(rollout: Rollout, now: datetime, code: str, sentence: str) -> str:
    _write(
        rollout,
        hold_code=code,
        hold_sentence=sentence,
        outlook="",
        looked_at=now,
        wake_at=now + LATER,
    )
    return "hold"


def _write(rollout: Rollout, **values: Any) -> None:
    """What the page shows, unless the rollout has moved on."""
    Rollout.objects.filter(pk=rollout.pk, version=rollout.version).update(**values)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }
