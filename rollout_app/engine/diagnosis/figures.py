"""The sums that the review and the diagnosis are computed from. Pure."""

from collections.abc import Iterable
from operator import add
from typing import NamedTuple

from rollout_app.engine.stats.ratios import Moments


class OutcomeSums(NamedTuple):
    """The summed outcomes of some tasks. Counts are of tasks, money is in nano-USD over all attempts of a task.

    `cost_*` covers the tasks with a known cost, `both_*` those that also have a grade: only these can give the cost
    per success. A cost of 0 is a known cost. This is a tuple for speed, because pages add up thousands.
    """

    tasks: int = 0
    successes: int = 0
    failures: int = 0
    cost_n: int = 0
    cost: int = 0
    both_n: int = 0
    both_successes: int = 0
    both_cost: int = 0
    escalations: int = 0
    fallbacks: int = 0
    retries: int = 0
    errors: int = 0
    # The fields below are needed for few rows only: pages with thousands of rows read just the fields above.
    attempts: int = 0
    cost_sq: float = 0.0
    both_cost_sq: float = 0.0
    both_cost_on_success: int = 0
    quality_n: int = 0
    quality: float = 0.0
    confidence_n: int = 0
    confidence: float = 0.0
    mirrored: int = 0  # tasks that both arms ran
    mirror_cost: int = 0  # cost of the second runs, whose answers were not served; not part of `cost`

    def __add__(self, other: "OutcomeSums") -> "OutcomeSums":  # type: ignore[override]  # adds up, not on
        return OutcomeSums(*map(add, self, other))

    @property
    def graded(self) -> int:
        return self.successes + self.failures

    @property
    def success(self) -> float | None:
        """Success rate of the graded tasks."""
        return ratio(self.successes, self.graded)

    @property
    def ungraded(self) -> float | None:
        """Share of tasks without a grade. A grade can arrive before its task's report: then none lacks one."""
        return ratio(max(0, self.tasks - self.graded), self.tasks)

    @property
    def unpriced(self) -> float | None:
        """Share of tasks whose cost is not known."""
        return ratio(self.tasks - self.cost_n, self.tasks)

    @property
    def cost_per_task(self) -> float | None:
        return ratio(self.cost, self.cost_n)

    @property
    def cost_per_success(self) -> float | None:
        """Cost per success of the tasks with a known cost and a grade. None, never 0, without any success."""
        return ratio(self.both_cost, self.both_successes)

    @property
    def success_moments(self) -> Moments:
        """y = cost, d = success, over the tasks with both."""
        d = self.both_successes
        return Moments(self.both_n, self.both_cost, d, self.both_cost_sq, self.both_cost_on_success, d)

    @property
    def task_moments(self) -> Moments:
        """y = cost, d = 1, over the tasks with a cost."""
        n, y = self.cost_n, self.cost
        return Moments(n, y, n, self.cost_sq, y, n)


NOTHING = OutcomeSums()


def total(parts: Iterable[OutcomeSums]) -> OutcomeSums:
    rows = list(parts)
    return OutcomeSums(*map(sum, zip(*rows, strict=True))) if rows else NOTHING


def ratio(part: float, whole: float) -> float | None:
    """Return part / whole, or None (never 0) if `whole` is 0."""
    return part / whole if whole else None
