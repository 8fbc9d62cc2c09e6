"""How often the engine is right: the real engine on simulated rollouts.

    python -m benchmarks.guardrails --runs 200 --jobs 2
    python -m benchmarks.guardrails --runs 200 --only "identical;success -5" --tuning "no slices"

Every run reads windows, judges and decides at every evaluation, with the same functions as a real rollout; only the
traffic is simulated. `--tuning` leaves out one part of the evidence, to measure its value.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import Pool
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.simulated.rollout import Run, simulate
from benchmarks.simulated.scenario import Scenario
from benchmarks.simulated.scenarios import ALL
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.measures.base import DEFAULT, Tuning
from rollout_app.engine.metrics import Metric

TUNINGS = {
    "default": DEFAULT,
    "no differing tasks": replace(DEFAULT, differing=0.0),
    "no slices": replace(DEFAULT, slices=0.0),
    "no exact cost test": replace(DEFAULT, exact_cost=0.0),
    "costs from 100 tasks": replace(DEFAULT, least_cost_tasks=100),
    "none of these": Tuning(0.1, 0.0, 0.0, 0.0, 0.0, least_cost_tasks=100),
}
SEED = 7_000
MARGIN = next(guardrail.margin for guardrail in guardrails_for() if guardrail.metric is Metric.FAILURE)


def summary(scenario: Scenario, runs: list[Run]) -> dict[str, Any]:
    """Return one row of the table, with shares in percent.

    `mean`: candidate tasks until rollback. `beyond`: runs whose total traffic had more failures than the margin.
    """
    back = [run for run in runs if run.end == "rolled back"]
    full = [run for run in runs if run.end == "full"]
    hold = [run for run in runs if run.end == "hold"]
    exposed = sorted(run.candidate_tasks for run in back)

    def percent(matching: int) -> float:
        return round(100 * matching / len(runs), 1)

    return {
        "scenario": scenario.name,
        "runs": len(runs),
        "rolled_back": percent(len(back)),
        "full": percent(len(full)),
        "hold": percent(len(hold)),
        "median": median(exposed) if exposed else None,
        "p95": round(quantiles(exposed, n=20)[-1]) if len(exposed) > 1 else None,
        "mean": round(sum(exposed) / len(exposed), 1) if exposed else None,
        "tasks_until_full": median(run.tasks for run in full) if full else None,
        "beyond": percent(sum(run.harm > MARGIN for run in runs)),
        "by": Counter(run.by for run in back).most_common(2),
        "held_by": Counter(run.by for run in hold).most_common(2),
        "named": Counter(name for run in back for name in run.named).most_common(1),
        "was": scenario.was,
        "goal": scenario.goal,
    }


def _table(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    yield (
        "| scenario | runs | rolled back / full / hold, % | candidate tasks until rollback, median / p95 "
        "| tasks until full | by, held by, named | before | goal |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        exposed = f"{row['median']:,.0f} / {row['p95']:,}" if row["p95"] is not None else ""
        until = f"{row['tasks_until_full']:,.0f}" if row["tasks_until_full"] is not None else ""
        words = "; ".join(
            ", ".join(f"{name} {times}" for name, times in row[key])
            for key in ("by", "held_by", "named")
            if row[key]
        )
        yield (
            f"| {row['scenario']} | {row['runs']:,} | {row['rolled_back']} / {row['full']} / {row['hold']} "
            f"| {exposed} | {until} | {words} | {row['was']} | {row['goal']} |"
        )


def _one(job: tuple[Scenario, int, Tuning]) -> Run:
    return simulate(*job)


def _rows(scenarios: list[Scenario], seeds: range, jobs: int, tuning: Tuning) -> Iterator[dict[str, Any]]:
    with Pool(jobs) as pool:
        for scenario in scenarios:
            began = time.monotonic()
            work = [(scenario, SEED + seed, tuning) for seed in seeds]
            done = pool.map(_one, work, chunksize=5)
            print(f"{scenario.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            yield summary(scenario, done)


def _kept(rows: Iterator[dict[str, Any]], path: Path | None) -> Iterator[dict[str, Any]]:
    for row in rows:
        if path:
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=200, help="runs per scenario (200)")
    parser.add_argument(
        "--skip", type=int, default=0, help="seeds left out: 200 gives runs that are not in the table"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--only", default="", help="names or parts of names, separated by ;")
    parser.add_argument("--plan", help="another plan for all scenarios")
    parser.add_argument("--tuning", choices=sorted(TUNINGS), default="default")
    parser.add_argument("--json", type=Path, help="append each row to this file as well")
    options = parser.parse_args()
    wanted = [part.strip() for part in options.only.split(";") if part.strip()]
    chosen = [s for s in ALL if not wanted or any(part in s.name for part in wanted)]
    if options.plan:
        chosen = [replace(scenario, plan=options.plan) for scenario in chosen]
    seeds = range(options.skip, options.skip + options.runs)
    rows = _rows(chosen, seeds, options.jobs, TUNINGS[options.tuning])
    for line in _table(_kept(rows, options.json)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
