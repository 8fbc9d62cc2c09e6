"""Simulated logs of a rollout with a known truth: success depends on something hidden from the outcome model."""

import math
import random
from dataclasses import dataclass

from rollout_app.backtest.doubly_robust import Observation, Value, ValueChange
from rollout_app.backtest.tally import Interval

_SPREAD = 0.8  # of log cost
_DRIFT = 0.1  # of success, over the hidden difficulty; less where it would reach 1


@dataclass(frozen=True, slots=True)
class DrawnLog:
    """How the tasks are generated.

    success    of the baseline and of the candidate
    per_unit   tasks of a unit; `unlike` is how much the rates of units differ (uniform, ± this)
    ungraded   share of the baseline's and of the candidate's tasks
    """

    tasks: int
    share: float
    success: tuple[float, float] = (0.9, 0.85)
    per_unit: int = 1
    unlike: float = 0.0
    ungraded: tuple[float, float] = (0.0, 0.0)
    cost: tuple[float, float] = (3_000.0, 1_000.0)

    @property
    def truth(self) -> dict[str, float]:
        """The values of the candidate, and their change from the baseline, without rounding costs to whole
        nano-dollars."""
        mean = math.exp(_SPREAD**2 / 2) * 1.5
        cost, before = self.cost[1] * mean, self.cost[0] * mean
        return {
            "success": self.success[1],
            "cost_per_task": cost,
            "cost_per_success": cost / self.success[1],
            "success_change": self.success[1] - self.success[0],
            "cost_per_success_change": cost / self.success[1] / (before / self.success[0]) - 1,
        }

    @staticmethod
    def figures(value: Value, change: ValueChange) -> dict[str, Interval]:
        """Return the estimates under the names of `truth`."""
        return {
            "success": value.success,
            "cost_per_task": value.cost_per_task,
            "cost_per_success": value.cost_per_success,
            "success_change": change.success,
            "cost_per_success_change": change.cost_per_success,
        }

    def draw(self, seed: int) -> tuple[list[Observation], list[Observation]]:
        """Return the candidate's view of one log and the baseline's. Their outcome model sees a die, not the
        difficulty."""
        chance = random.Random(seed)
        views: tuple[list[Observation], list[Observation]] = ([], [])
        for unit in range(self.tasks // self.per_unit):
            arm, own = int(chance.random() < self.share), chance.uniform(-self.unlike, self.unlike)
            for _ in range(self.per_unit):
                self._task(chance, unit, arm, own, views)
        return views[1], views[0]

    def _task(
        self,
        chance: random.Random,
        unit: int,
        arm: int,
        own: float,
        views: tuple[list[Observation], list[Observation]],
    ) -> None:
        hard, die = chance.random(), chance.randrange(6)
        drift = min(_DRIFT, 1.8 * (1 - self.success[arm]))
        rate = self.success[arm] + own + drift * (hard - 0.5) * (1 if arm else -1)
        good: bool | None = chance.random() < rate
        cost = round(self.cost[arm] * math.exp(chance.gauss(0, _SPREAD)) * (1 + hard))
        if chance.random() < self.ungraded[arm]:
            good = None
        for of, view in enumerate(views):
            matched = of == arm
            probability = self.share if of else 1 - self.share
            outcome = (good, cost) if matched else (None, None)
            view.append(Observation(f"u{unit}", ((of,), (of, die)), probability, matched, *outcome))
