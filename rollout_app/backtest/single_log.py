"""What a log with one model per task says about a policy: only the outcomes of tasks where both choose the same model.

Where they differ, nobody knows what would have happened. The agreeing tasks are no random sample either: the rule
that picked them may have picked the easy ones. So nothing is projected; the result says what is known and for how
many tasks. A router's task log says more, because the arm of each task was drawn during a rollout (`drawn`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app.backtest.drawn import Documents, Drawn, study
from rollout_app.backtest.follow import Unrecorded, follow
from rollout_app.backtest.readers.task_log import LoggedTask
from rollout_app.backtest.sources import Source, open_task_log, open_tasks
from rollout_app.backtest.tally import GROUPS, Interval, Tally, intervals, of_costs, of_share
from rollout_app.backtest.tasks import Task

_MOST_MOVES = 1_000  # counted separately; a damaged log could have a new model in each line
_OTHER = ("others", "others")


@dataclass(slots=True)
class Agreement:
    """What is known about a policy from a log.

    tasks, agreed      all tasks, and those on which the policy asks the models that were asked
    graded             agreed tasks with a known success
    accuracy, cost_per_success   over the agreed and graded tasks only
    moves              of other tasks: (model that was asked, model that the policy would ask), with counts
    drawn              for a router's task log: what the drawn tasks say about all tasks
    """

    tasks: int = 0
    agreed: int = 0
    graded: int = 0
    accuracy: Interval = field(default_factory=lambda: Interval(None))
    cost_per_success: Interval = field(default_factory=lambda: Interval(None))
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    drawn: Drawn | None = None


class LogComparison:
    """Compares one policy with a log, task by task."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self._policy, self._tally, self._found = policy, Tally(), Agreement()

    def add(self, task: Task) -> None:
        found = self._found
        found.tasks += 1
        followed = follow(self._policy, task)
        if isinstance(followed, Unrecorded):
            asked = next(iter(task.answers), "")
            move = asked, followed.model
            found.moves[move if move in found.moves or len(found.moves) < _MOST_MOVES else _OTHER] += 1
            return
        found.agreed += 1
        if followed.success is not None:
            self._tally.add(found.graded % GROUPS, followed.success, followed.cost_nusd)
            found.graded += 1

    def result(self) -> Agreement:
        found = self._found
        accuracy, per_success = intervals(
            [self._tally], [lambda sums: sums[0].accuracy, lambda sums: sums[0].cost_per_success]
        )
        sums = self._tally.totals()
        found.accuracy, found.cost_per_success = of_share(accuracy, sums), of_costs(per_success, sums)
        return found


def against_log(
    documents: Mapping[str, Mapping[str, Any]],
    source: Source,
    versions: Documents,
    bounded: Callable[[Iterator[Task]], Iterator[Task]] = iter,
) -> dict[str, Agreement]:
    """Return what a log says about each policy, by name. Raises the same errors as `open_tasks`.

    versions  the documents of the workload's versions by number; used only for a router's task log
    bounded   applies a limit on the tasks
    """
    each = {name: LogComparison(compile_policy(document)) for name, document in documents.items()}
    if source.log != "pointsman":
        for task in bounded(open_tasks(source)):
            for one in each.values():
                one.add(task)
        return {name: one.result() for name, one in each.items()}
    log = open_task_log(source)
    estimates = study(documents, versions, _compared(log.tasks(), list(each.values()), bounded))
    found = {name: one.result() for name, one in each.items()}
    for name, drawn in estimates.items():
        drawn.passed_over = log.read.sentences()
        found[name].drawn = drawn
    return found


def _compared(
    logged: Iterator[LoggedTask],
    each: Sequence[LogComparison],
    bounded: Callable[[Iterator[Task]], Iterator[Task]],
) -> Iterator[LoggedTask]:
    """Pass the tasks of a router's log through the comparisons, so that the file is read once."""
    latest: list[LoggedTask] = []

    def tasks() -> Iterator[Task]:
        for one in logged:
            latest[:] = [one]
            yield one.task

    for task in bounded(tasks()):
        for one in each:
            one.add(task)
        yield latest[0]
