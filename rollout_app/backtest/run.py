"""backtest(policies, tasks) → Backtest: one pass over any number of tasks.

All figures use the same tasks: those with a known outcome under every compared policy and model. Tasks left out are
counted by the model whose outcome is unknown. Cost figures use those of them for which all costs are also known.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.evaluate import CompiledPolicy
from pointsman.plurals import counted, plural_of
from pointsman.reporting.histogram import Histogram
from rollout_app.backtest.curve import Point, RouterScore, aiq, by_score, hull, mixed, pgr, random_router
from rollout_app.backtest.follow import Followed, Unrecorded, follow
from rollout_app.backtest.tally import (
    FEW,
    GROUPS,
    Interval,
    Resamples,
    Tally,
    TaskSums,
    intervals,
    of_costs,
    of_difference,
    of_share,
)
from rollout_app.backtest.tasks import Answer, Task

MAX_POLICIES = 101  # a sweep of one threshold in steps of a hundredth


@dataclass(slots=True)
class Counts:
    """Counts of what a policy did over the compared tasks."""

    rules: Counter[str] = field(default_factory=Counter)
    first: Counter[str] = field(default_factory=Counter)
    last: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    escalated: int = 0
    fell_back: int = 0
    retried: int = 0
    latency: Histogram = field(default_factory=Histogram)
    latency_sum: float = 0.0
    latency_n: int = 0

    def add(self, followed: Followed) -> None:
        self.rules[followed.rule] += 1
        self.first[followed.first] += 1
        self.last[followed.last] += 1
        if followed.missing:
            self.missing.update(followed.missing)
        self.calls += followed.calls
        self.escalated += followed.escalated
        self.fell_back += followed.fell_back
        self.retried += followed.retried
        if followed.latency_ms is not None:
            self.latency.record(followed.latency_ms)
            self.latency_sum += followed.latency_ms
            self.latency_n += 1


@dataclass(frozen=True, slots=True)
class Line:
    """The figures of one way to route over the compared tasks. Costs in nano-USD, shares 0 … 1.

    saving         of cost per success, compared with always asking the strong model; negative: it costs more
    random_mix     the accuracy that a random mix of the single models gets for the same money
    pgr            how much of the gap between weak and strong it recovers
    """

    name: str
    totals: TaskSums
    accuracy: Interval
    cost_per_task: Interval
    cost_per_success: Interval
    saving: Interval
    accuracy_change: Interval
    random_mix: float | None
    pgr: float | None
    counts: Counts | None = None


@dataclass(frozen=True, slots=True)
class Backtest:
    """The result.

    read, compared, priced   tasks: read, with every outcome known, with every cost also known
    left_out, unpriced       by model: why tasks are not compared, or not priced
    score, unranked          the score whose ranking was asked for, and the compared tasks that lack it
    policies, models         the figures of the policies and of each single model
    oracle                   the cheapest correct model for each task: an upper limit for any router
    frontier                 the single models that no random mix of others beats
    """

    read: int
    compared: int
    priced: int
    left_out: Mapping[str, int]
    unpriced: Mapping[str, int]
    weak: str
    strong: str
    policies: Sequence[Line]
    models: Sequence[Line]
    oracle: Line
    frontier: Sequence[Point]
    aiq: float | None
    scores: Mapping[str, RouterScore]
    score: str | None = None
    unranked: int = 0


class Run:
    """One pass: takes tasks and keeps sums."""

    def __init__(
        self, policies: Mapping[str, CompiledPolicy], models: Sequence[str], score: str | None
    ) -> None:
        if not 1 <= len(policies) <= MAX_POLICIES:
            raise ValueError(f"A backtest compares 1 to {MAX_POLICIES} policies, not {len(policies)}.")
        self.policies, self.models, self.score = policies, tuple(models), score
        self.read = self.compared = self.priced = 0
        self.left_out: Counter[str] = Counter()
        self.unpriced: Counter[str] = Counter()
        self.tallies = {name: Tally() for name in policies}
        self.counts = {name: Counts() for name in policies}
        self.singles = {model: Tally() for model in self.models}
        self.oracle = Tally()
        # By model's place: the tasks on which it and the tally's differ, until there are `FEW`.
        self.differing = {
            tally: dict.fromkeys(range(len(self.models)), 0)
            for tally in (self.oracle, *self.tallies.values(), *self.singles.values())
        }
        self.resamples: Resamples | None = None  # drawn after all tasks are added
        self.outcomes = [array("b") for _ in self.models]  # by model, of the tasks with a score: 1 or 0
        self.scores = array("d")

    def add(self, task: Task) -> None:
        """Add one task."""
        self.read += 1
        if (why := self._unknown(task)) is not None:
            self.left_out[why] += 1
            return
        followed: dict[str, Followed] = {}
        for name, policy in self.policies.items():
            one = follow(policy, task)
            if isinstance(one, Unrecorded):
                self.left_out[one.model] += 1
                return
            if one.success is None:
                self.left_out[one.last] += 1
                return
            followed[name] = one
        self._keep(task, followed)

    def _unknown(self, task: Task) -> str | None:
        """Return the first compared model whose outcome is unknown."""
        for model in self.models:
            answer = task.answers.get(model)
            if answer is None or answer.success is None:
                return model
        return None

    def _keep(self, task: Task, followed: Mapping[str, Followed]) -> None:
        group = self.compared % GROUPS
        self.compared += 1
        answers = [task.answers[model] for model in self.models]
        known = self._is_priced(answers, followed)
        scored = _are_scored(answers, followed)
        best = _cheapest_right(answers)
        outcomes: list[tuple[Tally, Answer | Followed]] = [(self.oracle, best)]
        outcomes += [(self.tallies[name], one) for name, one in followed.items()]
        outcomes += [(self.singles[model], at) for model, at in zip(self.models, answers, strict=True)]
        right = [answer.success is True for answer in answers]
        for tally, done in outcomes:
            cost, score = done.cost_nusd if known else None, done.quality if scored else None
            tally.add(group, done.success is True, cost, score)
            if few := self.differing[tally]:
                _count_differing(few, done.success is True, right)
        for name, one in followed.items():
            self.counts[name].add(one)
        if self.score is not None and (value := _score(task, self.score)) is not None:
            self.scores.append(value)
            for kept, answer in zip(self.outcomes, answers, strict=True):
                kept.append(answer.success is True)

    def _is_priced(self, answers: Sequence[Answer], followed: Mapping[str, Followed]) -> bool:
        """Return whether every compared cost is known; count the first model for which it is not."""
        for model, answer in zip(self.models, answers, strict=True):
            if answer.cost_nusd is None:
                self.unpriced[model] += 1
                return False
        for one in followed.values():
            if one.cost_nusd is None:
                self.unpriced[one.last] += 1
                return False
        self.priced += 1
        return True

    def result(self, weak: str | None = None) -> Backtest:
        """Return the figures of the added tasks. `weak`: the weak model; None: the one with the lowest accuracy."""
        weak, strong = self._ends(weak)
        singles = {model: tally.totals() for model, tally in self.singles.items()}
        points = [point for model, totals in singles.items() if (point := _point(model, totals)) is not None]
        frontier = hull(points)
        lines = [self._line(name, tally, weak, strong, frontier) for name, tally in self.tallies.items()]
        routed = [point for line in lines if (point := _point(line.name, line.totals)) is not None]
        span = sorted(point.cost for point in points)
        return Backtest(
            read=self.read,
            compared=self.compared,
            priced=self.priced,
            left_out=dict(self.left_out),
            unpriced=dict(self.unpriced),
            weak=weak,
            strong=strong,
            policies=lines,
            models=[
                self._line(model, tally, weak, strong, frontier) for model, tally in self.singles.items()
            ],
            oracle=self._line("oracle", self.oracle, weak, strong, frontier),
            frontier=frontier,
            aiq=aiq(routed, span[0], span[-1]) if span else None,
            scores=self._router_scores(weak, strong),
            score=self.score,
            unranked=0 if self.score is None else self.compared - len(self.scores),
        )

    def _ends(self, weak: str | None) -> tuple[str, str]:
        """Return the weak and the strong model by recorded quality: price is not strength."""
        quality = {model: tally.totals().accuracy or 0.0 for model, tally in self.singles.items()}
        # Among equals the policy's rank decides: its weakest model is not the strong one.
        strong = max(self.models, key=lambda model: (quality[model], model != weak))
        if weak is None or weak == strong or weak not in quality:
            weak = min(self.models, key=lambda model: (quality[model], model == strong))
        return weak, strong

    def _line(self, name: str, tally: Tally, weak: str, strong: str, frontier: Sequence[Point]) -> Line:
        other = self.singles[strong]
        if self.resamples is None:
            self.resamples = Resamples.of([other])
        accuracy, per_task, per_success, saving, change = intervals(
            [tally, other], [_accuracy, _per_task, _per_success, _saving, _change], self.resamples
        )
        mine, theirs = tally.totals(), other.totals()
        # The strong model does not differ from itself, by definition.
        differing = FEW if tally is other else self.differing[tally].get(self.models.index(strong), FEW)
        low, high = self.singles[weak].totals().accuracy, theirs.accuracy
        gap = None
        if accuracy.value is not None and low is not None and high is not None:
            gap = pgr(accuracy.value, low, high)
        mix = mixed(frontier, per_task.value) if per_task.value is not None else None
        return Line(
            name,
            mine,
            of_share(accuracy, mine),
            per_task,
            of_costs(per_success, mine),
            of_costs(saving, mine, theirs),
            of_difference(change, mine, theirs, differing),
            mix,
            gap,
            self.counts.get(name),
        )

    def _router_scores(self, weak: str, strong: str) -> dict[str, RouterScore]:
        """Return the value of the ranking by the score, and of a random one."""
        if not self.scores:
            return {}
        weaker, stronger = (self.outcomes[self.models.index(model)] for model in (weak, strong))
        gains = [to - at for at, to in zip(weaker, stronger, strict=True)]
        return {self.score or "": by_score(gains, self.scores), "random": random_router(gains)}


def backtest(
    policies: Mapping[str, CompiledPolicy],
    tasks: Iterable[Task],
    *,
    models: Sequence[str] = (),
    score: str | None = None,
) -> Backtest:
    """Run every policy over every task.

    models  the single models to compare with, by catalogue name; empty: all that the policies name
    score   what says how likely the weak model is right: the name of a request input (`confidence`, `attributes.x`),
            or `<model>:confidence` for the confidence of its answer. Its ranking of the tasks is judged as in RouteLLM
    Raises `ValueError` for too many policies, or if no task can be compared.
    """
    named = {model for policy in policies.values() for model, _ in policy.models.values()}
    run = Run(policies, sorted(set(models) or named), score)
    for task in tasks:
        run.add(task)
    if not run.compared:
        raise ValueError(_nothing(run))
    weakest = next(iter(policies.values()))
    return run.result(weakest.models[weakest.weakest][0])


def _nothing(run: Run) -> str:
    if not run.read:
        return "There are no tasks."
    model, count = run.left_out.most_common(1)[0]
    return (
        f"None of {counted(run.read, 'task')} can be compared: {count:,} {plural_of(count, 'has', 'have')} no known "
        f"outcome of {model}. "
        "A log of one model says nothing about another one."
    )


def _are_scored(answers: Sequence[Answer], followed: Mapping[str, Followed]) -> bool:
    """Return whether every compared answer has a score: mean scores, too, are over the same tasks."""
    if answers[0].quality is None:  # most recordings have none
        return False
    by_policies = all(one.quality is not None for one in followed.values())
    return by_policies and all(answer.quality is not None for answer in answers)


def _count_differing(few: dict[int, int], good: bool, right: Sequence[bool]) -> None:
    """Count the models whose outcome differs. Those with `FEW` differing tasks are no longer counted."""
    for place in [place for place in few if right[place] != good]:
        few[place] += 1
        if few[place] >= FEW:
            del few[place]


def _cheapest_right(answers: Sequence[Answer]) -> Answer:
    """Return the cheapest good answer, or the cheapest of all if none is good. Unknown costs come last."""
    best, place = answers[0], (True, True, 0)
    for answer in answers:
        found = (answer.success is not True, answer.cost_nusd is None, answer.cost_nusd or 0)
        if answer is best or found < place:
            best, place = answer, found
    return best


def _score(task: Task, name: str) -> float | None:
    """Return the task's score; None if it has none, or no finite one."""
    model = name.removesuffix(":confidence")
    value = (
        _input(task, name)
        if model == name
        else task.answers[model].confidence
        if model in task.answers
        else None
    )
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _input(task: Task, name: str) -> Any:
    first, _, rest = name.partition(".")
    value: Any = task.request.get(first)
    if rest:
        value = value.get(rest) if isinstance(value, Mapping) else None
    return value


def _point(name: str, totals: TaskSums) -> Point | None:
    cost, quality = totals.cost_per_task, totals.accuracy
    return None if cost is None or quality is None else Point(name, cost, quality)


def _accuracy(sums: Sequence[TaskSums]) -> float | None:
    return sums[0].accuracy


def _per_task(sums: Sequence[TaskSums]) -> float | None:
    return sums[0].cost_per_task


def _per_success(sums: Sequence[TaskSums]) -> float | None:
    return sums[0].cost_per_success


def _saving(sums: Sequence[TaskSums]) -> float | None:
    mine, strong = sums[0].cost_per_success, sums[1].cost_per_success
    return None if mine is None or not strong else 1 - mine / strong


def _change(sums: Sequence[TaskSums]) -> float | None:
    mine, strong = sums[0].accuracy, sums[1].accuracy
    return None if mine is None or strong is None else mine - strong
