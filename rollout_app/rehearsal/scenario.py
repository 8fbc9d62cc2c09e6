"""The parts of `manage.py replay`: selecting playable tasks, harming the candidate, and describing the rollout."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from django.db.models import Sum

from pointsman import Pace, Router
from pointsman.decision import Decision
from pointsman.plurals import counted, plural_of
from rollout_app import recorded
from rollout_app.backtest.sources import Source, open_tasks
from rollout_app.backtest.tasks import Answer, Task
from rollout_app.engine.evidence import Stage
from rollout_app.engine.states import State
from rollout_app.models import ArmTotals, Rollout

PACE = Pace(first_poll_within=0, flush_every=0.2)
NUSD = 10**9
MOST_PLAYED = 50_000  # tasks in memory: about 100 MB
_HARMS = ("success", "cost")
Harm = tuple[str, float]  # ("success", -0.05): points as a fraction; ("cost", 0.25): a fraction of the cost


RECORDED = {"gsm8k": recorded.gsm8k, "mmlu": recorded.mmlu, "routerarena": recorded.routerarena}


def tasks_of(source: Source) -> Iterator[Task]:
    """Yield the tasks of a set that comes with Pointsman, by its name, or of a file. Errors as in `open_tasks`, and
    `ValueError` at the end of a source without tasks.
    """
    found = False
    for task in RECORDED[source.path]() if source.path in RECORDED else open_tasks(source):
        found = True
        yield task
    if not found:
        raise ValueError(f"{source.path} has no tasks.")


@dataclass(frozen=True, slots=True)
class Playable:
    """Tasks that can be played, and by model the number of tasks left out because its outcome is not known.

    of   the number of playable tasks, of which at most `MOST_PLAYED` are kept, drawn at random
    """

    tasks: list[Task]
    left_out: Mapping[str, int]
    of: int

    def sentence(self) -> str:
        """Return a sentence about the tasks that were left out, or "" without any."""
        drawn = (
            f"{len(self.tasks):,} of {self.of:,} tasks are drawn at random."
            if len(self.tasks) < self.of
            else ""
        )
        if not self.left_out:
            return drawn
        each = ", ".join(f"{count:,} of {model}" for model, count in sorted(self.left_out.items()))
        played = f"{counted(self.of, 'task')} {plural_of(self.of, 'is', 'are')}"
        skipped = f"{played} played. Left out, because success or cost is not known: {each}."
        return f"{skipped} {drawn}".rstrip()


def playable(tasks: Iterable[Task], documents: Sequence[Mapping[str, Any]]) -> Playable:
    """Return the tasks with a known success and cost for every model of the policies, since any could be chosen.

    A replay draws from them at random, so a random sample of a large file is as good as the whole file in memory.
    Raise `ValueError` if there are none, so that the replay fails before it changes anything.
    """
    named = sorted({entry["model"] for document in documents for entry in document["models"].values()})
    kept, left_out, first, of = list[Task](), Counter[str](), None, 0
    chance = random.Random(1)  # noqa: S311 — a rehearsal is to be repeated, not secret
    for task in tasks:
        first = first or task
        unknown = next((model for model in named if not _is_known(task.answers.get(model))), None)
        if unknown is not None:
            left_out[unknown] += 1
            continue
        of += 1
        if of <= MOST_PLAYED:
            kept.append(task)
        elif (at := chance.randrange(of)) < MOST_PLAYED:
            kept[at] = task
    if not kept:
        each = ", ".join(f"{model} ({counted(count, 'task')})" for model, count in left_out.most_common())
        raise ValueError(
            f"No task can be played: success or cost is not known for {each}. "
            f"The policies may choose {', '.join(named)}; "
            f"the tasks have outcomes for {', '.join(sorted(first.answers if first else ())) or 'no model'}."
        )
    return Playable(kept, left_out, of)


def _is_known(answer: Answer | None) -> bool:
    return answer is not None and answer.success is not None and answer.cost_nusd is not None


def parse_harm(text: str) -> Harm:
    """Parse `success:-5` (points) or `cost:+25` (per cent). Raise `ValueError` with the expected format."""
    what, _, amount = text.partition(":")
    try:
        value = float(amount) / 100
    except ValueError:
        value = math.nan
    if what not in _HARMS or not -1 <= value <= 10 or (what == "success" and value >= 0):
        raise ValueError(f"{text!r}: write success:-5 (points) or cost:+25 (per cent)")
    return what, value


def announced(harm: Harm, minute: float) -> str:
    what, amount = harm
    by = f"{amount * 100:+g} points" if what == "success" else f"{amount * 100:+g} %"
    return f"From minute {minute:.0f} on, the candidate's {what} changes by {by} in every stage in which it serves."


class Harmed:
    """A router that makes its candidate worse from the `after`-th recorded task on, and is otherwise unchanged.

    Success falls by the given number of points whatever its level: with that probability, a task owes a failure, and
    the candidate's next success is turned into one. (Failing a fixed share of the successes would remove fewer points
    from a candidate with a lower success rate.)
    """

    def __init__(self, router: Router, harm: Harm, after: int, chance: random.Random) -> None:
        self._router, self._harm, self._after, self._chance = router, harm, after, chance
        self._recorded = self._owed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._router, name)

    def record(self, decision: Decision, success: bool, **figures: Any) -> None:
        self._recorded += 1
        if self._recorded > self._after and decision.arm == "candidate":
            success, figures = self._worse(decision, success, figures)
        self._router.record(decision, success, **figures)

    def _worse(
        self, decision: Decision, success: bool, figures: dict[str, Any]
    ) -> tuple[bool, dict[str, Any]]:
        what, amount = self._harm
        if what == "cost":
            return success, {**figures, "cost_nusd": round(decision.steps.cost_nusd * (1 + amount))}
        self._owed += self._chance.random() < -amount
        if success and self._owed:
            self._owed -= 1
            return False, figures
        return success, figures


def harmed(router: Router, harm: Harm | None, after: int, seed: int) -> Router:
    """Return the router, wrapped so that it harms its candidate if `harm` is given."""
    if harm is None:
        return router
    chance = random.Random(seed)  # noqa: S311 — reproducible, not secret
    return cast("Router", Harmed(router, harm, after, chance))


def hurried(stages: Iterable[Mapping[str, Any]], times: float) -> list[dict[str, Any]]:
    """Return the plan with its times divided by `times`, as stages wait by the wall clock while traffic is faster."""
    return [
        {
            **stage,
            "min_minutes": stage.get("min_minutes", 0) / times,
            "max_hours": None if stage.get("max_hours") is None else max(stage["max_hours"] / times, 0.01),
        }
        for stage in stages
    ]


def progress(rollout: Rollout) -> str:
    """Describe the rollout's state, stage and hold in one line."""
    held = f": {rollout.hold_sentence}" if rollout.hold_sentence else ""
    return f"{rollout.state.replace('_', ' ')}, {_stage(rollout, rollout.stage)}{held}"


def phase(rollout: Rollout) -> tuple[str, int, str]:
    """Return what must change before another line is printed. Figures are not part of it, as they change every time."""
    return rollout.state, rollout.stage, rollout.hold_code


def _stage(rollout: Rollout, at: int) -> str:
    return Stage.from_dict(rollout.stages[at]).label


def summary(rollout: Rollout) -> str:
    """Describe the whole rollout: every step with its reason, what holds it at the end, and each arm's figures."""
    lines = ["", f"{rollout.workload.name}, {rollout}: it is {rollout.state.replace('_', ' ')}."]
    lines += [
        f"  {moved.sequence}. {moved.event.replace('_', ' ')} → {moved.after_state.replace('_', ' ')}, "
        f"{_stage(rollout, moved.after_stage)}: {moved.reason}"
        for moved in rollout.transitions.all()
    ]
    if rollout.hold_sentence:
        lines += [f"  Held by: {rollout.hold_sentence}", f"  What would move it: {rollout.outlook}"]
    return "\n".join([*lines, "", *map(_figures, *_arms(rollout))])


def afterwards(rollout: Rollout, harm: Harm | None, minute: float, lasted: float) -> list[str]:
    """Return notes on a finished rehearsal that its user may not expect."""
    lines = []
    if harm and lasted <= minute:
        lines.append(
            f"It ended after {lasted:.0f} minutes of traffic, before the harm of minute {minute:.0f}. Use a smaller "
            "--at to start the harm earlier, or --per-minute to slow the plan down."
        )
    if rollout.state == State.COMPLETED:
        before, now, place = rollout.baseline.number, rollout.candidate.number, rollout.environment.name
        lines.append(f"{place} serves version {now} from here on; a revert brings version {before} back.")
    return lines


def _arms(rollout: Rollout) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    rows = ArmTotals.of_rollout(rollout)
    names = ("tasks", "successes", "failures", "graded_sum", "graded_successes")
    arms = ("baseline", "candidate")
    return arms, [
        rows.filter(arm=arm).aggregate(**{name: Sum(name, default=0) for name in names}) for arm in arms
    ]


def _figures(arm: str, sums: Mapping[str, Any]) -> str:
    graded, good = sums["successes"] + sums["failures"], sums["successes"]
    if not good:
        return f"  {arm}: {sums['tasks']:,} tasks, none successful"
    priced = sums["graded_successes"]  # successes whose cost is known
    cost = f"${sums['graded_sum'] / priced / NUSD:.6f} a success" if priced else "cost unknown"
    return f"  {arm}: {sums['tasks']:,} tasks, {good / graded:.1%} successful, {cost}"
