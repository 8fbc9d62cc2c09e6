"""Accuracy of "about N more candidate tasks": the forecast at each hold, compared with what was needed.

    python -m benchmarks.outlook --runs 60

Candidates that are no worse, with the plan `cautious`. The forecast of every fifth minute of a stage is compared with
the tasks that arrived until every guardrail had passed. Minimum times and tasks of a stage are ignored.
"""

import argparse
from multiprocessing import Pool
from statistics import median

from benchmarks.simulated.rollout import stages_of
from benchmarks.simulated.scenario import Scenario, Units
from benchmarks.simulated.traffic import Traffic
from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.evidence import SHARE_ALL
from rollout_app.engine.guardrails import guardrails_for

SCENARIOS = (
    Scenario("identical"),
    Scenario("identical, 20 % differ", differing=0.2),
    Scenario("identical, users correlated .3", units=Units(users=True)),
    Scenario("identical, cost lognormal sigma 2", sigma=2.0),
)
EVERY = 5  # minutes
Forecast = tuple[int | None, int]  # more candidate tasks: the forecast (None: unknown) and the actual number


def holds(job: tuple[Scenario, int]) -> list[Forecast]:
    """Return the forecasts of one rollout, except those of a stage that has not passed when the evaluations end."""
    scenario, seed = job
    traffic, stages = Traffic(scenario, seed), stages_of(scenario.plan)
    accumulator = Accumulator.open(guardrails_for(), stages, traffic.reference)
    forecasts: list[Forecast] = []
    waiting: list[tuple[int | None, int]] = []
    stage = ours = since = 0
    for evaluation in range(scenario.evaluations):
        row = traffic.row(evaluation, stages[stage].share_pcm / SHARE_ALL, stage)
        ours += row.candidate.tasks
        accumulator.take([row], before=evaluation + 1)
        judgement = accumulator.judge(stage, forecast=False, detail=False)
        if not judgement.open:
            forecasts += [(forecast, ours - then) for forecast, then in waiting]
            waiting, stage, since = [], stage + 1, evaluation + 1
            if stages[stage].mode == "full":
                break
        elif (evaluation - since) % EVERY == 0 and all(verdict.waited_for for verdict in judgement.open):
            needed = [
                verdict.needed_tasks for verdict in accumulator.forecast(judgement, stage, longest=True).open
            ]
            known = [n for n in needed if n is not None]
            waiting.append((max(known) if len(known) == len(needed) else None, ours))
    return forecasts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print("| scenario | holds | no forecast, % | within a factor of 2, % | median of forecast / actual |")
    print("|---|---|---|---|---|")
    with Pool(options.jobs) as pool:
        for scenario in SCENARIOS:
            found = pool.map(holds, [(scenario, 90_000 + seed) for seed in range(options.runs)])
            forecasts = [one for run in found for one in run]
            ratios = [forecast / max(1, actual) for forecast, actual in forecasts if forecast is not None]
            close = sum(0.5 <= ratio <= 2 for ratio in ratios)
            print(
                f"| {scenario.name} | {len(forecasts)} | {100 * (len(forecasts) - len(ratios)) / len(forecasts):.1f} "
                f"| {100 * close / len(forecasts):.0f} | {median(ratios):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
