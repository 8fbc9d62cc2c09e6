"""The stored sums of rate guardrails: x bad of n tasks per part, and the number of tasks without the figure."""

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Self

from rollout_app.engine.measures.base import (
    ALL,
    DIFFERING,
    Conditions,
    Tuning,
    WindowView,
    kept_of,
    since,
    stage_of,
)
from rollout_app.engine.measures.parts import Parted
from rollout_app.engine.measures.sufficient import (
    Counts,
    MissingStatistics,
    RateStatistics,
    RateStep,
    merged,
)
from rollout_app.engine.metrics import Metric, count
from rollout_app.engine.stats import missing, rates
from rollout_app.engine.stats.rates import mantel_haenszel

_CLEAR = 0.01  # one point: an excess of tasks without the figure from which it is said


@dataclass(slots=True)
class RatePart:
    """The statistics of one part's tasks, and of its tasks without the figure."""

    stats: RateStatistics
    missing: MissingStatistics = field(default_factory=MissingStatistics)

    def dump(self) -> dict[str, list[float]]:
        data = {"rates": self.stats.dump()}
        if self.missing.nt or self.missing.nc:
            data["missing"] = self.missing.dump()
        return data

    @classmethod
    def load(cls, psis: tuple[float, ...], data: Mapping[str, Any]) -> Self:
        part = cls(RateStatistics.load(psis, data["rates"]))
        if "missing" in data:
            part.missing = MissingStatistics(*data["missing"])
        return part


def shrinkage(stats: RateStatistics, margin: float, deff: float) -> float:
    """Return the fraction of the difference so far that is likely to persist."""
    n = stats.nt + stats.nc
    if not n or not stats.mh_denominator:
        return 0.0
    p = (stats.xt + stats.xc + 0.5) / (n + 1)
    return kept_of(margin, deff * p * (1 - p) / stats.mh_denominator)


class Rate(Parted[RatePart]):
    """Common base of both rate measures: sums of all tasks since the start, and since each of three later stages."""

    threshold: float

    def __init__(
        self, metric: Metric, psis: Iterable[float], restarts: Sequence[int], tuning: Tuning, weight: float
    ) -> None:
        self.metric, self.spec, self.weight = metric, metric.spec, weight
        self.psis = tuple(psis)
        super().__init__(restarts, tuning)

    def _new_part(self) -> RatePart:
        return RatePart(RateStatistics(self.psis))

    def tasks(self) -> tuple[float, float]:
        return self.whole.stats.nt, self.whole.stats.nc

    def note(self, margin: float, conditions: Conditions) -> str:  # noqa: ARG002 — other measures need them
        """Return a sentence if one arm lacks the figure for clearly more of its tasks than the other."""
        what = self.whole.missing
        if what.excess(missing.Z_SAFE).share < _CLEAR:
            return ""
        candidate, baseline = what.mt / what.nt, what.mc / what.nc
        return (
            f"{candidate * 100:.1f} % of the candidate's tasks have no {self.spec.figure}, {baseline * 100:.1f} % of "
            "the baseline's. The difference counts neither as safe nor as harm."
        )

    def take(self, view: WindowView) -> None:
        stage = view.window.stage
        running = [ALL, *(since(at) for at in self.restarts if stage >= at)]
        for counts in self._counts(view):
            step = RateStep(counts, self.psis)
            for name in running:
                self._part(name).stats.take(step)
        self._miss(view, running)

    def _counts(self, view: WindowView) -> Sequence[Counts]:
        if self.metric is Metric.FAILURE:
            return view.failures
        return [(*count(self.metric, view.window.candidate), *count(self.metric, view.window.baseline))]

    def _miss(self, view: WindowView, names: Iterable[str]) -> None:
        counts = self._without(view)
        if view.alone:
            for name in names:
                self._part(name).missing.add_alone(*counts[:2], self.whole.missing)
            return
        sums = mantel_haenszel([(counts[1], counts[0], counts[3], counts[2])])
        for name in names:
            self._part(name).missing.take(counts, sums)

    def _without(self, view: WindowView) -> Counts:
        """Return the tasks without the figure and all tasks, of both arms."""
        mt, nt, mc, nc = view.no_grade
        if self.spec.graded:
            return mt, nt, mc, nc
        (kt, _), (kc, _) = (count(self.metric, arm) for arm in (view.window.candidate, view.window.baseline))
        return nt - min(nt, kt), nt, nc - min(nc, kc), nc

    def load(self, data: Mapping[str, Any]) -> None:
        for name, part in data.items():
            self.parts[name] = RatePart.load(self._psis_of(name), part)

    def _psis_of(self, name: str) -> tuple[float, ...]:
        return self.psis if name == ALL or stage_of(name) is not None else rates.HARM_PSIS

    def load_older(self, by_stage: Mapping[int, Sequence[Any]]) -> None:
        """Load the sums per stage of format 4."""
        loaded = {stage: RateStatistics.load_older(self.psis, data) for stage, data in by_stage.items()}
        self.parts[ALL].stats = merged(loaded, RateStatistics(self.psis))
        for at in self.restarts:
            if any(stage >= at for stage in loaded):
                self._part(since(at)).stats = merged(loaded, RateStatistics(self.psis), at)

    def record(self) -> dict[str, Any]:
        return {
            name: part.stats.as_dict() | {"missing": part.missing.as_dict()}
            for name, part in self.parts.items()
        }

    def _after(self, stretch: float, conditions: Conditions) -> Self:
        """Return a copy extrapolated by `stretch` times as many tasks, with the difference so far shrunk."""
        later = copy(self)
        later.parts = {}
        for name in (ALL, DIFFERING):
            if part := self.parts.get(name):
                kept = shrinkage(part.stats, self.threshold, conditions.deff)
                later.parts[name] = RatePart(part.stats.after(stretch, kept), part.missing.after(stretch))
        return later
