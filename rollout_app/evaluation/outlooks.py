"""Estimate how many more tasks a hold needs. Computed when a quarter more tasks have arrived, counted down in between.

Computing it takes as long as the rest of an evaluation, and nothing depends on it: a sweep of ten thousand rollouts
would compute ten thousand forecasts a minute. Forecasts are stored with the sums.
"""

from collections.abc import Sequence
from typing import Any

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.values import replace

_GROWN = 1.25  # factor on the tasks of the last forecast


def with_outlook(
    accumulator: Accumulator, judgement: Judgement, kept: Sequence[Any], stage: int
) -> tuple[Judgement, Sequence[Any]]:
    """Return the judgement with the tasks that are still needed, and the forecast to store for the next evaluation.

    A stored forecast (`kept`) is [stage, tasks, total tasks needed, names of the guardrails without an estimate].
    """
    waiting = [verdict for verdict in judgement.verdicts if verdict.waited_for]
    tasks = max((verdict.n_candidate for verdict in waiting), default=0)
    if kept and kept[0] == stage and tasks < _GROWN * kept[1] and tasks < kept[2]:
        _, _, until, untold = kept
        left = round(until - tasks)
        told = (
            replace(v, needed_tasks=None if v.name in untold else left) if v.waited_for else v
            for v in judgement.verdicts
        )
        return replace(judgement, verdicts=tuple(told)), kept
    judgement = accumulator.forecast(judgement, stage, longest=True)
    waiting = [verdict for verdict in judgement.verdicts if verdict.waited_for]
    untold = [verdict.name for verdict in waiting if verdict.needed_tasks is None]
    longest = max((verdict.needed_tasks or 0 for verdict in waiting), default=0)
    return judgement, [stage, tasks, _GROWN * tasks if untold else tasks + longest, untold]
