"""About how many more tasks a hold takes: worked out anew only when a quarter more tasks have come, else counted down.

To work it out takes as long as the rest of an evaluation, and nobody waits for it: a sweep of ten thousand rollouts
would pay for ten thousand forecasts a minute. What was forecast is kept with the sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rollout_app.engine.accumulator import Accumulator
from rollout_app.engine.judgement import Judgement
from rollout_app.engine.verdicts import Verdict

_GROWN = 1.25  # times the tasks of the last forecast


@dataclass(frozen=True, slots=True)
class Forecast:
    """Made on so many of the candidate's tasks: how many it takes in all; None: that can't be told."""

    tasks: float
    until: float | None

    def holds(self, tasks: float) -> bool:
        return tasks < _GROWN * self.tasks and (self.until is None or tasks < self.until)


def with_outlook(
    accumulator: Accumulator, judgement: Judgement, kept: Sequence[Any], stage: int
) -> tuple[Judgement, list[Any]]:
    """The judgement with what each verdict still takes, and what to keep of it. `kept`: of an earlier evaluation."""
    forecasts = _read(kept, stage)
    waiting = [verdict for verdict in judgement.verdicts if verdict.waited_for]
    stale = {v.name for v in waiting if v.name not in forecasts or not forecasts[v.name].holds(v.n_candidate)}
    if stale:
        judgement = accumulator.forecast(judgement, stale)
    verdicts = []
    for verdict in judgement.verdicts:
        if verdict.name in stale:
            needed = verdict.needed_tasks
            until = None if needed is None else verdict.n_candidate + needed
            forecasts[verdict.name] = Forecast(verdict.n_candidate, until)
        elif verdict.waited_for:
            verdict = replace(verdict, needed_tasks=_left(verdict, forecasts[verdict.name]))
        verdicts.append(verdict)
    return replace(judgement, verdicts=tuple(verdicts)), _written(forecasts, stage)


def _left(verdict: Verdict, forecast: Forecast) -> int | None:
    return None if forecast.until is None else max(1, round(forecast.until - verdict.n_candidate))


def _read(kept: Sequence[Any], stage: int) -> dict[str, Forecast]:
    """Those for the same next stage; of another one they say nothing."""
    if not kept or kept[0] != stage:
        return {}
    by_name: Mapping[str, Any] = kept[1]
    return {name: Forecast(tasks, until) for name, (tasks, until) in by_name.items()}


def _written(forecasts: Mapping[str, Forecast], stage: int) -> list[Any]:
    return [stage, {name: [one.tasks, one.until] for name, one in forecasts.items()}]
