"""How long tasks took in the week before, and how long they would take with the candidate. Reads only.

A model's latency is that of the tasks that it answered on the first attempt. A task that also asks the second stage's
model takes both latencies: the mean over all tasks is the sum of each model's mean, times the share of tasks that ask
it. Latency under another load, or of a model that has not served this workload, is unknown.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add

from controlplane.web.display import MINUS, count, milliseconds, plural
from pointsman.reporting.histogram import Histogram, middle
from rollout_app.blast_radius.projection import ZERO, Bounds
from rollout_app.blast_radius.radius import BlastRadius
from rollout_app.blast_radius.week import PIN, SPAN, first_alias
from rollout_app.review.reading import TimedRow, timed_rows
from rollout_app.review.rollups import merge

LEAST_TIMED = 100  # tasks needed to know a model's latency
_DAYS = SPAN.days


@dataclass(slots=True)
class Answers:
    """What is known about a model's answers. `first`: those on the first attempt, of tasks that asked no other model;
    only these have a latency of their own, in milliseconds (`timed`). `reported`: whether a router reported any
    latency.
    """

    tasks: int = 0
    first: int = 0
    timed: Histogram = field(default_factory=Histogram)
    reported: bool = False

    @property
    def mean(self) -> float | None:
        """Milliseconds; None if too few tasks were timed."""
        return mean(self.timed) if self.timed.total >= LEAST_TIMED else None

    def why_unknown(self, model: str) -> str:
        """Return why the model's latency is unknown."""
        if not self.tasks:
            return f"{model} answered no task"
        if not self.first:
            return f"{model} answered {plural(self.tasks, 'task')}, but none on the first attempt"
        first = f"{plural(self.first, 'task')} on the first attempt"
        if not self.reported:
            return f"{model} answered {first}, but routers reported no latency"
        return f"{model} answered {first}, {_with_latency(self.timed.total)}"


@dataclass(frozen=True, slots=True)
class LatencyProjection:
    """Milliseconds per task on average. `models`: latencies by model that are known.

    `now`: of the baseline; None if too few tasks were timed. `candidate`: None if a model that it asks has no known
    latency; these are `unmeasured`. `answers`: by model; `served`: of the baseline, whichever model answered.
    """

    models: Mapping[str, Histogram]
    now: float | None
    candidate: Bounds | None
    unmeasured: tuple[str, ...]
    answers: Mapping[str, Answers]
    served: Answers

    @property
    def change(self) -> Bounds | None:
        if self.now is None or self.candidate is None:
            return None
        low, high, expected = self.candidate
        return Bounds(low - self.now, high - self.now, None if expected is None else expected - self.now)

    @property
    def sentence(self) -> str:
        if (change := self.change) is None:
            return f"The change in latency is unknown. {self._why_unknown}"
        low, high = _signed(change.low), _signed(change.high)
        about = low if low == high else f"between {low} and {high}"
        if low != high and change.expected is not None:
            about += f" ({_signed(change.expected)} expected)"
        return f"Mean latency: {about} per task, at {milliseconds(self.now)} now."

    @property
    def _why_unknown(self) -> str:
        if self.unmeasured:
            why = "; ".join(
                self.answers.get(model, Answers()).why_unknown(model) for model in self.unmeasured
            )
        elif not self.served.tasks:
            why = "the baseline answered no task"
        elif not self.served.reported:
            why = f"routers reported no latency for the {plural(self.served.tasks, 'task')} of the baseline"
        elif self.now is None:
            why = f"the baseline answered {plural(self.served.tasks, 'task')}, {_with_latency(self.served.timed.total)}"
        else:
            return "It is not known which models the candidate would ask."
        return f"In the {_DAYS} days before the candidate gets traffic, {why}."


def _with_latency(timed: int) -> str:
    return f"{count(timed)} of them with a known latency; {LEAST_TIMED} are needed"


def projected_latency(radius: BlastRadius) -> LatencyProjection:
    """Return the projection from the week before; with no traffic everything is unknown."""
    models, served = _read(radius)
    means = {model: ms for model, answers in models.items() if (ms := answers.mean) is not None}
    asked = {model: tasks for model, tasks in radius.whole.asked.items() if tasks.high}
    unmeasured = tuple(sorted(asked.keys() - means.keys()))
    candidate = None
    if asked and not unmeasured:
        parts = (tasks.times(means[model] / radius.whole.tasks) for model, tasks in asked.items())
        candidate = reduce(add, parts, ZERO)
    known = {model: models[model].timed for model in means}
    return LatencyProjection(known, served.mean, candidate, unmeasured, models, served)


def mean(timed: Histogram) -> float:
    """Return the mean in milliseconds. The histogram must not be empty; its error is at most 2.2 %."""
    return sum(middle(bucket) * count for bucket, count in timed.counts.items()) / timed.total


def _read(radius: BlastRadius) -> tuple[dict[str, Answers], Answers]:
    """Return the answers by model, and those of the baseline; of all versions if it has had hardly any tasks."""
    week = radius.week
    models: dict[str, Answers] = defaultdict(Answers)
    served = Answers()
    for row in timed_rows(radius.environment, radius.workload, week.start, week.end):
        version = week.versions.get(row.version)
        if version is None:
            continue
        if row.rule != PIN and (row.version == radius.baseline.number or not week.own_version):
            _count(served, row, alone=True)
        if entry := version.document["models"].get(row.model):
            is_first = first_alias(version.document, row.rule, row.model) == row.model
            _count(models[entry["model"]], row, alone=is_first and not row.escalations, first=is_first)
    return dict(models), served


def _count(answers: Answers, row: TimedRow, *, alone: bool, first: bool = True) -> None:
    """Add a row. `alone`: its latencies are of these answers only; with a second stage they are of both answers."""
    answers.tasks += row.tasks
    answers.first += row.tasks - row.escalations if first else 0
    timed = Histogram()
    merge(timed, row.histogram)
    answers.reported |= timed.total > 0
    if alone:
        answers.timed.merge(timed)


def _signed(ms: float) -> str:
    whole = round(ms)
    return f"{'+' if whole > 0 else MINUS if whole < 0 else ''}{milliseconds(abs(whole))}"
