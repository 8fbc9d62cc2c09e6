"""What a log of one model each says of a policy: only what came of the tasks on which both choose the same.

Where they differ nobody knows what would have happened. These tasks are no random sample either: the rule that picked
them may have picked the easy ones. So nothing is projected from here; it is said what is known, and of how many.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pointsman.evaluate import CompiledPolicy
from rollout_app.backtest.follow import Unrecorded, follow
from rollout_app.backtest.tally import GROUPS, Interval, Tally, intervals
from rollout_app.backtest.tasks import Task


@dataclass(slots=True)
class Agreement:
    """What is known.

    tasks, agreed      how many there are, and on how many the policy asks the models that were asked
    graded             of the agreed: with a known success
    accuracy, cost_per_success   of the agreed and graded ones; of nothing else
    moves              (model that was asked, model that the policy would ask) of the others, with how many
    """

    tasks: int = 0
    agreed: int = 0
    graded: int = 0
    accuracy: Interval = field(default_factory=lambda: Interval(None))
    cost_per_success: Interval = field(default_factory=lambda: Interval(None))
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)


def agreement(policy: CompiledPolicy, tasks: Iterable[Task]) -> Agreement:
    """The policy against a log, task by task."""
    found, tally = Agreement(), Tally()
    for task in tasks:
        found.tasks += 1
        followed = follow(policy, task)
        if isinstance(followed, Unrecorded):
            asked = next(iter(task.answers), "")
            found.moves[asked, followed.model] += 1
            continue
        found.agreed += 1
        if followed.success is not None:
            tally.add(found.graded % GROUPS, followed.success, followed.cost_nusd)
            found.graded += 1
    found.accuracy, found.cost_per_success = intervals(
        [tally], [lambda sums: sums[0].accuracy, lambda sums: sums[0].cost_per_success]
    )
    return found
