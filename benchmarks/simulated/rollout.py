"""One simulated rollout with the engine's own functions: read the windows, judge, decide, as in an evaluation."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from benchmarks.simulated.rivals import Rivals
from benchmarks.simulated.scenario import Scenario
from benchmarks.simulated.traffic import Traffic
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Advance, Complete, Hold, RollBack, decide
from rollout_app.engine.evidence import SHARE_ALL, FleetView, RolloutView, Stage, Telemetry
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.holds import Evidence
from rollout_app.engine.measures.base import DEFAULT, Tuning
from rollout_app.engine.measures.shares import expected
from rollout_app.engine.plans import SAVED
from rollout_app.engine.states import State

START = datetime(2026, 1, 5, tzinfo=UTC)
FLEET = FleetView(routers=9, applied=9)


@dataclass(frozen=True)
class Run:
    """The end of one simulated rollout."""

    end: str  # rolled back, full, hold
    tasks: int  # of both arms until the end
    candidate_tasks: int
    candidate_failures: int
    by: str = ""  # the guardrail that rolled it back, or the reason for the hold at the end
    named: tuple[str, ...] = ()  # endpoints in the reason
    fired: tuple[bool, bool, bool, bool] = (False, False, False, False)
    unhealthy: float = 0.0  # share of evaluations that found the baseline unhealthy
    harm: float = 0.0  # expected excess failures over all tasks, as a fraction, at the largest share
    codes: dict[str, int] = field(default_factory=dict)


def stages_of(plan: str) -> tuple[Stage, ...]:
    """The saved plan without its shadow stage. `cautious 5` starts at 5 %; `evidence 5` has 1 minute per share."""
    name, _, first = plan.partition(" ")
    stages = [Stage.from_dict(stage) for stage in SAVED[name][1] if stage["mode"] != "shadow"]
    if name != "evidence":  # 15 minutes per share, including the bake, as for the first engine
        stages = [replace(s, min_minutes=15) if s.mode == "percentage" else s for s in stages]
    return tuple(s for s in stages if not first or s.mode == "full" or s.share_pcm >= 1_000 * int(first))


def simulate(scenario: Scenario, seed: int, tuning: Tuning = DEFAULT) -> Run:
    """Run one rollout from its first percentage until it is full, rolled back, or out of evaluations."""
    traffic, stages = Traffic(scenario, seed), stages_of(scenario.plan)
    accumulator = Accumulator.open(guardrails_for(), stages, traffic.reference, tuning)
    rivals, rows, stage, entered = Rivals(), [], 0, 0
    total = ours = failures = 0
    harm = 0.0
    codes: dict[str, int] = {}
    for evaluation in range(scenario.evaluations):
        minute = evaluation * scenario.step
        row = traffic.row(evaluation, stages[stage].share_pcm / SHARE_ALL, stage)
        rows.append(row)
        harm = max(harm, -scenario.success * stages[stage].share_pcm / SHARE_ALL)
        total += expected(row.candidate) + expected(row.baseline)
        ours += expected(row.candidate)
        failures += row.candidate.failures
        now = START + timedelta(minutes=minute + scenario.step)
        late = {} if scenario.reports else traffic.late
        if not accumulator.take(rows, before=minute + scenario.step - scenario.delay, late=late):
            continue
        rows = [row for row in rows if row.minute >= accumulator.cursors.get(row.stage, 0)]
        rivals.take(row.candidate, row.baseline)
        view = RolloutView(State.RUNNING, stages, stage, START + timedelta(minutes=entered))
        tally = accumulator.tallies.values()
        telemetry = Telemetry(
            sum(t.candidate_expected for t in tally), sum(t.candidate_tasks for t in tally), now
        )
        judgement = accumulator.judge(stage, forecast=False, detail=False)
        evidence = Evidence(
            judgement, traffic.reference, telemetry, rivals.last_hour(max(1, 60 // scenario.step))
        )
        decision = decide(view, evidence, FLEET, now)

        def ended(end: str, by: str, named: tuple[str, ...] = ()) -> Run:
            return Run(end, total, ours, failures, by, named, rivals.fired, harm=harm, codes=codes)  # noqa: B023

        match decision:
            case RollBack():
                by = decision.verdicts[0].name if decision.verdicts else decision.code
                return ended("rolled back", by, tuple(one.name for v in decision.verdicts for one in v.hurt))
            case Advance():
                stage, entered = decision.to, minute + scenario.step
            case Hold():
                codes[decision.reason.code] = codes.get(decision.reason.code, 0) + 1
            case Complete():
                pass
        if stages[stage].mode == "full":
            return ended("full", "")
    last = decision.reason.code if isinstance(decision, Hold) else ""
    if last == "evidence":
        last = ",".join(v.name for v in judgement.open)
    return Run("hold", total, ours, failures, last, (), rivals.fired, harm=harm, codes=codes)
