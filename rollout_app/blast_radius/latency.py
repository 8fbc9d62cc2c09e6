"""How long tasks took in the week before, and how long they would take with the candidate. Reads only.

A model's latency is that of the tasks that it answered on the first attempt. A task that also asks the second stage's
model takes both latencies: the mean over all tasks is the sum of each model's mean, times the share of tasks that ask
it. Latency under another load, or of a model that has not served this workload, is unknown.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from controlplane.web.display import MINUS, milliseconds
from pointsman.reporting.histogram import Histogram, middle
from rollout_app.blast_radius.projection import ZERO, Bounds
from rollout_app.blast_radius.radius import BlastRadius
from rollout_app.blast_radius.week import first_alias
from rollout_app.review.models import HourOutcomes
from rollout_app.review.rollups import merge

LEAST_TIMED = 100  # tasks needed to know a model's latency


@dataclass(frozen=True, slots=True)
class LatencyProjection:
    """Milliseconds per task on average. `models`: latencies by model that are known.

    `now`: of the baseline; None if too few tasks were timed. `candidate`: None if a model that it asks has no known
    latency; these are `unmeasured`.
    """

    models: Mapping[str, Histogram]
    now: float | None
    candidate: Bounds | None
    unmeasured: tuple[str, ...]

    @property
    def change(self) -> Bounds | None:
        if self.now is None or self.candidate is None:
            return None
        low, high, expected = self.candidate
        return Bounds(low - self.now, high - self.now, None if expected is None else expected - self.now)

    @property
    def sentence(self) -> str:
        if self.unmeasured:
            names = ", ".join(self.unmeasured)
            return f"The change in latency is unknown: fewer than {LEAST_TIMED} timed answers of {names}."
        if (change := self.change) is None:
            return "The change in latency is unknown: too few tasks of the week before were timed."
        low, high = _signed(change.low), _signed(change.high)
        about = low if low == high else f"between {low} and {high}"
        if low != high and change.expected is not None:
            about += f" ({_signed(change.expected)} expected)"
        return f"Mean latency: {about} per task, at {milliseconds(self.now)} now."


def projected_latency(radius: BlastRadius) -> LatencyProjection:
    """Return the projection from the week before; with no traffic everything is unknown."""
    models, served = _read(radius)
    known = {model: timed for model, timed in models.items() if timed.total >= LEAST_TIMED}
    asked = {model: tasks for model, tasks in radius.whole.asked.items() if tasks.high}
    unmeasured = tuple(sorted(asked.keys() - known.keys()))
    candidate = None
    if asked and not unmeasured:
        parts = (tasks.times(mean(known[model]) / radius.whole.tasks) for model, tasks in asked.items())
        candidate = reduce(add, parts, ZERO)
    now = mean(served) if served.total >= LEAST_TIMED else None
    return LatencyProjection(known, now, candidate, unmeasured)


def mean(timed: Histogram) -> float:
    """Return the mean in milliseconds. The histogram must not be empty; its error is at most 2.2 %."""
    return sum(middle(bucket) * count for bucket, count in timed.counts.items()) / timed.total


def _read(radius: BlastRadius) -> tuple[dict[str, Histogram], Histogram]:
    """Return latencies by the model that answered on the first attempt, and those of all tasks of the baseline."""
    week = radius.week
    rows = HourOutcomes.objects.filter(
        environment=radius.environment, workload=radius.workload, hour__gte=week.start, hour__lt=week.end
    )
    models: dict[str, Histogram] = defaultdict(Histogram)
    served = Histogram()
    columns = ("version", "rule", "model", "escalations", "latency_histogram")
    for number, rule, model, escalations, histogram in rows.values_list(*columns).iterator(chunk_size=2_000):
        version = week.versions.get(number)
        if version is None or not histogram:
            continue
        if number == radius.baseline.number or not week.own_version:
            merge(served, histogram)
        entry = version.document["models"].get(model)
        if entry and not escalations and first_alias(version.document, rule, model) == model:
            merge(models[entry["model"]], histogram)
    return models, served


def _signed(ms: float) -> str:
    whole = round(ms)
    return f"{'+' if whole > 0 else MINUS if whole < 0 else ''}{milliseconds(abs(whole))}"
