"""Judge rollouts: read what is new for each, add it to its sums, and decide. Writes nothing.

`evaluations` reads and stores, the engine judges and decides; this module connects them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from policies_app.fleet.listening import Hearing, read_hearing
from policies_app.fleet.readback import Fleet, read_fleet
from rollout_app import actions
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.calibration import outcomes_needed
from rollout_app.engine.decide import Advance, Decision, Hold, decide
from rollout_app.engine.evidence import ArmSums, FleetView, Late, MinuteRow, RolloutView, Stage, Telemetry
from rollout_app.engine.guarded import for_display
from rollout_app.engine.holds import Evidence
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.measures.shares import expected
from rollout_app.engine.reference import Reference
from rollout_app.engine.shadow import lacks_costs
from rollout_app.engine.stats.combine import missing_breach
from rollout_app.engine.values import replace
from rollout_app.engine.windows import closes_before
from rollout_app.evaluation import evaluations
from rollout_app.evaluation.evaluations import Evaluation, Progress, Subject, whole_rollout
from rollout_app.evaluation.outlooks import with_outlook
from rollout_app.evaluation.second_stage import second_stage_costs, unpriced_models
from rollout_app.outcomes import baseline, minute_totals

# How long to leave a rollout alone when no outcomes arrive. This delays how soon changes by time or by the
# fleet are seen.
SOON, LATER = timedelta(seconds=2), timedelta(seconds=60)
_MINUTES_OF_HEALTH = 60


@dataclass(slots=True)
class Fleets:
    """The routers of each environment, read once per sweep for all evaluations."""

    _by_environment: dict[int, Fleet] = field(default_factory=dict)
    _hearing: Hearing | None = None

    def view(self, subject: Subject) -> FleetView:
        fleet = self._by_environment.get(subject.environment_id)
        if fleet is None:
            self._hearing = self._hearing or read_hearing()
            fleet = read_fleet(subject.environment, hearing=self._hearing)
            self._by_environment[subject.environment_id] = fleet
        applied, routers = fleet.applied_by(subject.revision or 0)
        rejected = tuple(str(no) for no in fleet.rejected if no.digest == subject.digest)
        return FleetView(routers=routers, applied=applied, rejected=rejected)


def judge(
    subjects: Sequence[Subject], now: datetime, fleets: Fleets
) -> tuple[list[Evaluation], list[tuple[Subject, Exception]]]:
    """Judge each rollout. Return the evaluations, and the rollouts that raised with their errors.

    New minutes of all rollouts are read together, in two statements.
    """
    started = [_start(subject, now) for subject in subjects]
    with_outcomes = [one for one in started if one.subject.newest_minute]
    rows = minute_totals.minute_rows([one.unjudged_minutes() for one in with_outcomes])
    young = minute_totals.baseline_sums([span for one in with_outcomes for span in one.young_minutes()])
    done: list[Evaluation] = []
    failed: list[tuple[Subject, Exception]] = []
    for one in started:
        name = one.subject.name
        try:
            done.append(_judge_one(one, rows.get(name, []), young.get(name, ArmSums()), now, fleets))
        except Exception as error:  # one rollout's bad data must not stop the others
            failed.append((one.subject, error))
    return done, failed


# --- what is new -----------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Started:
    """An evaluation in progress: how far the sums go, and up to which minute they may grow."""

    subject: Subject
    progress: Progress
    calibrated_now: bool  # whether this evaluation measured the reference
    before: int  # Unix minute: the first that is still open; 0 without outcomes
    measured: Reference | None = None  # by this evaluation, perhaps on too few outcomes

    def unjudged_minutes(self) -> minute_totals.MinuteQuery:
        """Return the minutes that are not in a window yet. The shadow gate also counts open minutes."""
        subject, cursors = self.subject, self.progress.cursors
        before = minute_totals.NO_LIMIT if subject.plan[subject.stage].mode == "shadow" else self.before
        ranges = tuple(
            minute_totals.MinuteRange(subject.name, stage, cursors.get(stage, 0), before)
            for stage in range(subject.stage + 1)
        )
        return minute_totals.MinuteQuery(self.progress.reference, subject.sticky, ranges)

    @property
    def hour(self) -> range:
        """The hour up to the newest stamped minute."""
        newest = self.subject.newest_minute
        end = minute_totals.minute_of(newest) + 1 if newest else 0
        return range(end - _MINUTES_OF_HEALTH, end)

    def young_minutes(self) -> list[minute_totals.MinuteRange]:
        """Return the part of the hour that is still open, of this stage and the one before. The sums hold the rest."""
        first, stage = max(self.before, self.hour.start), self.subject.stage
        stages = range(max(0, stage - 1), stage + 1)
        return [
            minute_totals.MinuteRange(self.subject.name, stage, first, self.hour.stop) for stage in stages
        ]


def _start(subject: Subject, now: datetime) -> _Started:
    progress = subject.progress()
    newest, received = subject.newest_minute, subject.received_at
    if newest is None or received is None:
        return _Started(subject, progress, False, 0)
    calibrated_now, measured = False, None
    needed = outcomes_needed(subject.plan, sticky=subject.sticky)
    if progress.reference.outcomes < needed:
        # The reference rests on too few outcomes, so measure it again. Restarting the sums with it loses
        # nothing: all minutes of the rollout are read again.
        measured = baseline.reference(whole_rollout(subject.pk), now)
        if calibrated_now := measured.outcomes >= needed:
            progress = Progress(measured, {}, {}, (), has_sums=False)
    before = closes_before(
        now=now, lag_s=subject.lag_s, newest_minute=minute_totals.minute_of(newest), last_received_at=received
    )
    return _Started(subject, progress, calibrated_now, before, measured)


# --- judge one -------------------------------------------------------------------------------------------


def _judge_one(
    one: _Started, rows: list[MinuteRow], young: ArmSums, now: datetime, fleets: Fleets
) -> Evaluation:
    subject, accumulator = one.subject, one.subject.accumulator(one.progress)
    taken = bool(accumulator.take(rows, before=one.before)) or one.calibrated_now
    # Do not store sums that lack a window: the next evaluation adds it again.
    is_new = taken and not accumulator.failed
    still_open = [row for row in rows if row.minute >= accumulator.cursors.get(row.stage, 0)]
    rehearsed = sum((row.rehearsed for row in still_open if row.rehearsed), accumulator.rehearsed)
    evidence = Evidence(
        judgement=accumulator.judge(subject.stage, forecast=False, detail=False),
        reference=one.measured or accumulator.reference,  # how many outcomes are still missing
        telemetry=_telemetry(one, accumulator, still_open),
        baseline_last_hour=_last_hour(one, accumulator, still_open, young),
        shadow=rehearsed.shadow,
        mirror=rehearsed.mirror,
    )
    view, fleet = _view(subject, accumulator.stages, now), fleets.view(subject)
    decision, forecasts = _decided(one, accumulator, view, evidence, fleet, now)
    if _may_rest_on_what_is_late(decision, taken) and accumulator.take_late(_late(one, accumulator)):
        is_new = not accumulator.failed
        again = accumulator.judge(subject.stage, forecast=False, detail=False)
        evidence = replace(evidence, judgement=again)
        decision, forecasts = _decided(one, accumulator, view, evidence, fleet, now)
    if more := _asked_of_shadow(subject, view, decision, evidence):
        evidence = more
        decision, forecasts = _decided(one, accumulator, view, evidence, fleet, now)
    wake_at = _wake_at(subject, accumulator.stages[subject.stage], decision, now)
    evaluation = Evaluation(subject, decision, wake_at, broken=evidence.judgement.broken)
    results = {verdict.name: verdict.result.value for verdict in evidence.judgement.verdicts}
    if is_new:
        progress = {"results": results, "forecasts": forecasts}
        evaluation.sums = evaluations.as_json(accumulator.as_dict() | progress)
        evaluation.reference = accumulator.reference.as_dict() if one.calibrated_now else None
    acts = not isinstance(decision, Hold)
    # Verdicts are stored when the evaluation acts or a verdict changed. A row per evaluation would be
    # megabytes a day of unchanged values, and the sums yield the current verdicts at any time
    # (`evaluations.judged`).
    if acts or (is_new and results != one.progress.results):
        for_display("the record", lambda: _record(evaluation, accumulator, evidence, acts, is_new), None)
    return evaluation


def _asked_of_shadow(
    subject: Subject, view: RolloutView, decision: Decision, evidence: Evidence
) -> Evidence | None:
    """Return the evidence with what only this decision of a shadow stage needs, or None if it needs no more."""
    if isinstance(decision, Hold) and decision.reason.code == "shadow" and lacks_costs(evidence.shadow):
        return replace(evidence, unpriced_models=unpriced_models(subject.pk))
    if isinstance(decision, Advance) and view.current.mode == "shadow":
        # Projecting the second stage reads a week of traffic, so do it only if everything else allows the
        # advance.
        return replace(evidence, second_stage=second_stage_costs(subject.pk, evidence.shadow))
    return None


def _may_rest_on_what_is_late(decision: Decision, is_new: bool) -> bool:
    """Return whether to count late reports again: before each move, and while late reports are what holds the rollout.

    Counting reads every judged minute of the rollout, so it is not done at every evaluation.
    """
    if isinstance(decision, Hold):
        return is_new and decision.reason.code == "incomplete"
    return True


def _late(one: _Started, accumulator: Accumulator) -> dict[int, Late]:
    """Return, by stage, the tasks and grades of judged minutes that arrived after they were judged."""
    known = minute_totals.counted_by_now(one.subject.name, accumulator.cursors)
    late = {}
    for stage, tally in accumulator.tallies.items():
        t, c = (known.get((stage, arm), minute_totals.NOTHING) for arm in ("candidate", "baseline"))
        tasks = max(0, t.tasks - tally.candidate_tasks), max(0, c.tasks - tally.baseline_tasks)
        graded = t.graded - tally.candidate_graded, c.graded - tally.baseline_graded
        late[stage] = Late(*tasks, *(max(0, g - n) for g, n in zip(graded, tasks, strict=True)))
    return late


def _decided(
    one: _Started,
    accumulator: Accumulator,
    view: RolloutView,
    evidence: Evidence,
    fleet: FleetView,
    now: datetime,
) -> tuple[Decision, Sequence[Any]]:
    """Return the decision and the forecasts to store. A hold that waits for evidence says how much it still needs."""
    forecasts = one.progress.forecasts

    def forecast() -> Judgement:
        nonlocal forecasts
        known, forecasts = forecasts, ()  # if it fails, none is stored
        judgement, forecasts = with_outlook(accumulator, evidence.judgement, known, one.subject.stage)
        return judgement

    decision = decide(view, evidence, fleet, now, forecast)
    return decision, forecasts


def _record(
    evaluation: Evaluation, accumulator: Accumulator, evidence: Evidence, acts: bool, is_new: bool
) -> None:
    """Set the verdicts to store and the evidence for an action's audit entry: enough to compute the verdicts again."""
    judgement = accumulator.detailed(evidence.judgement)
    if is_new:
        evaluation.verdicts = [(v.name, v.result.value, evaluations.as_json(v)) for v in judgement.verdicts]
    if acts:
        # Include the reference: it may have been measured long after the audit entry of the start.
        found = {
            "judgement": judgement.as_dict(),
            "reference": accumulator.reference.as_dict(),
            "telemetry": _plain(asdict(evidence.telemetry)),
        }
        # Through JSON, which has no infinity. An infinity would make the audit entry fail, and the action
        # with it.
        evaluation.evidence = msgspec.json.decode(evaluations.as_json(found))


def _last_hour(
    one: _Started, accumulator: Accumulator, still_open: list[MinuteRow], young: ArmSums
) -> ArmSums:
    """Return the baseline's sums of the last hour: closed minutes, those waiting for their window, and open ones."""
    waiting = (row.baseline for row in still_open if one.hour.start <= row.minute < one.before)
    return sum(waiting, accumulator.baseline_since(one.hour.start)) + young


def _telemetry(one: _Started, accumulator: Accumulator, still_open: list[MinuteRow]) -> Telemetry:
    """Return the telemetry from the sums. These leave out late outcomes, so if outcomes seem missing, read them all."""
    tallies = accumulator.tallies.values()
    due = sum(expected(row.candidate) for row in still_open if row.minute < one.before)
    finished = sum(row.candidate.tasks for row in still_open)
    due += sum(tally.candidate_expected for tally in tallies)
    finished += sum(tally.candidate_tasks for tally in tallies)
    if missing_breach(due, finished):
        return minute_totals.telemetry(one.subject.name, one.before, one.subject.received_at)
    return Telemetry(due, finished, one.subject.received_at)


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
        next_stage_approved=asks
        and actions.standing_approval(whole_rollout(subject.pk), following) is not None,
        freeze=actions.freeze_sentence(subject.environment, now),
    )


def _wake_at(subject: Subject, stage: Stage, decision: Decision, now: datetime) -> datetime:
    """Return when to evaluate again if no outcomes arrive: soon for the fleet, exactly when the minimum time is
    reached.
    """
    code = decision.reason.code if isinstance(decision, Hold) else ""
    later = now + (SOON if code == "fleet" else LATER)
    if subject.stage_entered_at is None or subject.paused_at is not None:
        return later
    done = subject.stage_entered_at + timedelta(minutes=stage.min_minutes, seconds=subject.paused_s)
    return min(done, later) if done > now else later


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
    }
