"""How often the engine is right: the real pure engine over simulated rollouts.

    python -m benchmarks.guardrails --runs 1000 --jobs 2
    python -m benchmarks.guardrails --runs 200 --only "identical;success -5"

Every run forms strata, feeds the ledger, judges and decides at every look, exactly as a rollout does; only
the traffic is made up. Beside it, on the same streams, what a plain threshold and a repeated z-test would
have done.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from multiprocessing import Pool
from pathlib import Path
from statistics import median, quantiles

from benchmarks.traffic import Scenario, Traffic
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.decide import Advance, Complete, Evidence, RollBack, decide
from rollout_app.engine.evidence import (
    SHARE_ALL,
    ArmSums,
    FleetView,
    MinuteRow,
    RolloutView,
    Stage,
    Telemetry,
)
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.metrics import Metric, count
from rollout_app.engine.states import State

START = datetime(2026, 1, 5, tzinfo=UTC)
FLEET = FleetView(routers=9, applied=9)
PLANS = {
    "cautious": (1_000, 5_000, 25_000, 50_000, 95_000),
    "standard": (5_000, 25_000, 50_000, 95_000),
    "low-traffic": (25_000, 50_000),
}
SCENARIOS = (
    Scenario("identical"),
    Scenario("identical, standard plan", plan="standard"),
    Scenario("identical, success drifts 95 to 89 %", drift="linear"),
    Scenario("identical, diurnal success and volume", drift="diurnal"),
    Scenario("identical, 10 requests a user, correlated .3", users=True),
    Scenario("identical, 5-minute outage in both arms", outage=True),
    Scenario("identical, cost lognormal sigma 2", sigma=2.0),
    Scenario("identical, outcomes 15 minutes late", delay=15),
    Scenario("identical, 20 tasks an hour, 60 days", per_minute=1, step=20, looks=4_320, plan="low-traffic"),
    Scenario("success -1 point (half the margin)", success=-0.01),
    Scenario("success -2 points (the margin)", success=-0.02),
    Scenario("success -5 points", success=-0.05),
    Scenario("success -10 points", success=-0.10),
    Scenario("everything fails", success=-0.92),
    Scenario("success -5 points, from 50 % on", success=-0.05, late_stage=3),
    Scenario("success -5 points, outcomes 15 minutes late", success=-0.05, delay=15),
    Scenario("success -5 points, correlated users", success=-0.05, users=True),
    Scenario(
        "success -10 points, 20 tasks an hour",
        success=-0.10,
        per_minute=1,
        step=20,
        looks=4_320,
        plan="low-traffic",
    ),  # fmt: skip
    Scenario("cost per success +5 % (half the margin)", cost=1.05),
    Scenario("cost per success +10 %", cost=1.10),
    Scenario("cost per success +25 %", cost=1.25),
    Scenario("cost per success +25 %, sigma 2", cost=1.25, sigma=2.0),
    Scenario("cost per success +10 %, sigma 2", cost=1.10, sigma=2.0),
    Scenario("cost per success +10 %: 1.4 % of tasks cost eightfold", dear=0.1 / 7),
    Scenario("cost per success +25 %: 3.6 % of tasks cost eightfold", dear=0.25 / 7),
    Scenario("p95 latency +20 %", latency=1.20),
    Scenario("p95 latency +50 %", latency=1.50),
)
# (rolled back, full, hold %, median, p95 candidate tasks until rollback): what the rules reached when
# designed.
DESIGNED = {
    "identical": "2.5 / 97.5 / 0; full after 28 k",
    "identical, success drifts 95 to 89 %": "2.6 / 97.4 / 0",
    "success -2 points (the margin)": "92.9 / 1.5 / 5.6; 2,514 / 25,586",
    "success -5 points": "100; 340 / 1,130",
    "success -10 points": "100; 98 / 246",
    "everything fails": "100; 5 / 7",
    "cost per success +10 %": "88.7, 0.9 pass; 4,819",
    "cost per success +25 %": "100; 622",
    "p95 latency +20 %": "99.9; 998",
    "p95 latency +50 %": "100; 142",
}


@dataclass(frozen=True)
class Run:
    """How one simulated rollout ended."""

    end: str  # rolled back, full, hold
    tasks: int  # of both arms until then
    candidate_tasks: int
    by: str  # what rolled it back
    threshold: bool  # a plain threshold on failures would have
    threshold_any: bool  # on any of the rates
    z_test: bool
    z_test_any: bool


def stages_of(plan: str) -> tuple[Stage, ...]:
    steps = [Stage("percentage", share_pcm=pcm, min_minutes=15, min_tasks=50) for pcm in PLANS[plan]]
    return (*steps, Stage("full"))


def simulate(scenario: Scenario, seed: int) -> Run:
    """One rollout from its first percentage until it is full, rolled back, or out of looks."""
    traffic, stages = Traffic(scenario, seed), stages_of(scenario.plan)
    ledger = Accumulator.open(guardrails_for(), stages, traffic.reference)
    rivals, rows, stage, entered = Rivals(), [], 0, 0
    total = candidate_total = 0
    for look in range(scenario.looks):
        minute = look * scenario.step
        candidate, baseline = traffic.arms(look, stages[stage].share_pcm / SHARE_ALL, stage)
        rows.append(MinuteRow(stage, minute, candidate, baseline, traffic.groups))
        total += candidate.tasks + baseline.tasks
        candidate_total += candidate.tasks
        if not ledger.take(rows, before=minute + scenario.step - scenario.delay):
            continue
        rows = [row for row in rows if row.minute >= ledger.cursors.get(row.stage, 0)] or []
        rivals.look(candidate, baseline)
        now = START + timedelta(minutes=minute + scenario.step)
        view = RolloutView(State.RUNNING, stages, stage, START + timedelta(minutes=entered))
        evidence = Evidence(
            ledger.judge(stage, forecast=False, detail=False),
            traffic.reference,
            Telemetry(0, 1, now),
            rivals.last_hour(max(1, 60 // scenario.step)),
        )
        decision = decide(view, evidence, FLEET, now)
        if isinstance(decision, RollBack):
            by = decision.verdicts[0].name if decision.verdicts else decision.code
            return Run("rolled back", total, candidate_total, by, *rivals.fired)
        if isinstance(decision, Advance):
            stage, entered = stage + 1, minute + scenario.step
        if isinstance(decision, Complete) or stages[stage].mode == "full":
            return Run("full", total, candidate_total, "", *rivals.fired)
    return Run("hold", total, candidate_total, "", *rivals.fired)


_RATES = (
    Metric.FAILURE, Metric.ERROR, Metric.ESCALATION, Metric.FALLBACK, Metric.RETRY, Metric.LATENCY_TAIL,
)  # fmt: skip
_MARGINS = {g.metric: g.margin for g in guardrails_for()}


class Rivals:
    """What is done instead, on pooled sums: a threshold on the estimate, a z-test at every look."""

    def __init__(self) -> None:
        self.sums = {metric: [0, 0, 0, 0] for metric in _RATES}
        self.hour: list[ArmSums] = []
        self.threshold: set[Metric] = set()
        self.z: set[Metric] = set()

    @property
    def fired(self) -> tuple[bool, bool, bool, bool]:
        return Metric.FAILURE in self.threshold, bool(self.threshold), Metric.FAILURE in self.z, bool(self.z)

    def look(self, candidate: ArmSums, baseline: ArmSums) -> None:
        self.hour.append(baseline)
        for metric, sums in self.sums.items():
            for i, value in enumerate((*count(metric, candidate), *count(metric, baseline))):
                sums[i] += value
            nt, xt, nc, xc = sums
            if nt < 50 or not nc:
                continue
            difference, p = xt / nt - xc / nc, (xt + xc) / (nt + nc)
            if difference >= _MARGINS[metric]:
                self.threshold.add(metric)
            error = math.sqrt(p * (1 - p) * (1 / nt + 1 / nc))
            if error and difference / error > 1.645:
                self.z.add(metric)

    def last_hour(self, looks: int) -> ArmSums:
        del self.hour[:-looks]
        return ArmSums(
            tasks=sum(arm.tasks for arm in self.hour),
            successes=sum(arm.successes for arm in self.hour),
            failures=sum(arm.failures for arm in self.hour),
            errors=sum(arm.errors for arm in self.hour),
            fallbacks=sum(arm.fallbacks for arm in self.hour),
        )


def summary(name: str, runs: list[Run]) -> dict[str, object]:
    """One row of the table. Shares in percent."""
    back = [run for run in runs if run.end == "rolled back"]
    full = [run for run in runs if run.end == "full"]
    exposed = sorted(run.candidate_tasks for run in back)

    def percent(matching: int) -> float:
        return round(100 * matching / len(runs), 1)

    return {
        "scenario": name,
        "runs": len(runs),
        "rolled_back": percent(len(back)),
        "full": percent(len(full)),
        "hold": percent(len(runs) - len(back) - len(full)),
        "median": median(exposed) if exposed else None,
        "p95": round(quantiles(exposed, n=20)[-1]) if len(exposed) > 1 else None,
        "tasks_until_full": median(run.tasks for run in full) if full else None,
        "threshold": percent(sum(run.threshold for run in runs)),
        "threshold_any": percent(sum(run.threshold_any for run in runs)),
        "z_test": percent(sum(run.z_test for run in runs)),
        "z_test_any": percent(sum(run.z_test_any for run in runs)),
        "designed": DESIGNED.get(name, ""),
    }


def _table(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    yield (
        "| scenario | runs | rolled back / full / hold, % | candidate tasks until rollback, median / p95 "
        "| tasks until full | as designed | threshold: failures / any | z-test: failures / any |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        exposed = f"{row['median']:,.0f} / {row['p95']:,}" if row["p95"] is not None else ""
        until = f"{row['tasks_until_full']:,.0f}" if row["tasks_until_full"] is not None else ""
        yield (
            f"| {row['scenario']} | {row['runs']:,} | {row['rolled_back']} / {row['full']} / {row['hold']} "
            f"| {exposed} | {until} | {row['designed']} | {row['threshold']} / {row['threshold_any']} "
            f"| {row['z_test']} / {row['z_test_any']} |"
        )


def _one(job: tuple[Scenario, int]) -> Run:
    return simulate(*job)


def _rows(scenarios: list[Scenario], runs: int, jobs: int) -> Iterator[dict[str, object]]:
    with Pool(jobs) as pool:
        for scenario in scenarios:
            began = time.monotonic()
            done = pool.map(_one, [(scenario, seed) for seed in range(runs)], chunksize=5)
            print(f"{scenario.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            yield summary(scenario.name, done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1_000, help="runs a scenario (1,000)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="names or parts of names, separated by ;")
    parser.add_argument("--plan", choices=sorted(PLANS), help="another plan for all scenarios")
    parser.add_argument("--json", type=Path, help="append each row to this file as well")
    parser.add_argument("--table", type=Path, help="run nothing: print the table of rows that --json kept")
    options = parser.parse_args()
    if options.table:
        kept = {row["scenario"]: row for row in map(json.loads, options.table.read_text().splitlines())}
        print("\n".join(_table(kept[s.name] for s in SCENARIOS if s.name in kept)))
        return
    wanted = [part.strip() for part in options.only.split(";") if part.strip()]
    chosen = [s for s in SCENARIOS if not wanted or any(part in s.name for part in wanted)]
    if options.plan:
        chosen = [replace(scenario, plan=options.plan) for scenario in chosen]
    rows = _rows(chosen, options.runs, options.jobs)
    for line in _table(_kept(rows, options.json)):
        print(line, flush=True)


def _kept(rows: Iterator[dict[str, object]], path: Path | None) -> Iterator[dict[str, object]]:
    for row in rows:
        if path:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        yield row


if __name__ == "__main__":
    main()
