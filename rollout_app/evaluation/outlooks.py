"""About how many more tasks a hold takes: worked out anew only when a quarter more tasks have come, else counted down.

To work it out takes as long as the rest of an evaluation, and nobody waits for it: a sweep of ten thousand rollouts
would pay for ten thousand forecasts a minute. What was forecast is kept with the sums.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.judgement import Judgement

_GROWN = 1.25  # times the tasks of the last forecast


def with_outlook(
    accumulator: Accumulator, judgement: Judgement, kept: Sequence[Any], stage: int
) -> tuple[Judgement, Sequence[Any]]:
    """The judgement with what the hold still takes, and what to keep of that for the next evaluation (`kept`).

    That is the stage, the tasks, how many it takes in all, and the guardrails of which it can't be told.
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
