"""Select and group the tasks of sticky units for the comparison.

A unit stays in one arm. If a unit fails more than others anyway, this is no harm done by its arm. Heavy units are
excluded (chosen by the number of their tasks, never by the outcomes). The others are compared among units whose past
predicts similar failure rates (`stats.cells`), and the unexplained variation divides the evidence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rollout_app.engine.evidence import ClosedWindow, Group
from rollout_app.engine.measures.sufficient import Counts
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.cells import (
    CELLS,
    Prediction,
    compared_design_effect,
    predict,
    residual_design_effect,
)
from rollout_app.engine.stats.deff import unit_spread

HEAVY_BEFORE = 0.05  # a cell with a larger share of the tasks before the rollout is excluded
HEAVY_HOUR = 0.03  # the same for the tasks of the last hour
# A cell is also excluded once it sends the share ARRIVED of a window's tasks (at least ARRIVED_TASKS), after a share
# below WAS_LIGHT.
ARRIVED, WAS_LIGHT, ARRIVED_TASKS = 0.05, 0.01, 8
_HOUR = 60  # minutes in which recent counts decay to 1/e
_PRIOR_TASKS = 500  # weight, in tasks, of the shares before the rollout in those of the first hour
# At a new share, a cell is excluded if it deviates by more squared standard errors (times the design effect).
_OUTLIER = 16
_ROUNDED = 1 + 1e-6  # keeps a tie a tie after the sums were stored, which rounds them
_COVERED = 0.95  # share of an arm's graded tasks and failures for which its cells must account


@dataclass(slots=True)
class Units:
    """The state of one rollout's hash cells. `seen`: by cell, the baseline's tasks, failures, expected, variance."""

    before: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)
    left_out: set[int] = field(default_factory=set)
    recent: dict[int, float] = field(default_factory=dict)  # tasks of both arms, decaying over an hour
    recent_minute: int | None = None
    seen: dict[int, list[float]] = field(default_factory=dict)
    tasks: dict[int, int] = field(default_factory=dict)  # tasks of both arms so far
    ours: dict[int, int] = field(default_factory=dict)  # tasks of the candidate so far
    stage: int | None = None  # the stage of the current predictions
    reported: bool = False  # routers have reported cells
    # baseline tasks of the last hour (decaying), and their expected failures
    level: list[float] = field(default_factory=lambda: [0.0, 0.0])
    prediction: Prediction = field(default_factory=lambda: Prediction(0.0))

    @classmethod
    def begin(cls, reference: Reference) -> Self:
        units = cls(reference.cells)
        total = sum(counts[0] + counts[2] for counts in reference.cells.values())
        for cell, (n1, _, n2, _) in reference.cells.items():
            share = (n1 + n2) / total if total else 0.0
            units.recent[cell] = _PRIOR_TASKS * share
            if share > HEAVY_BEFORE:
                units.left_out.add(cell)
        units.prediction = predict(_without(reference.cells, units.left_out))
        return units

    @property
    def vary(self) -> bool:
        """Whether the past shows that units differ in their failure rates."""
        return bool(self.prediction.persistent) or bool(self.left_out)

    def take(self, window: ClosedWindow) -> list[Counts]:
        """Add the window, and return its graded tasks and failures, one entry per class of similar units.

        If the cells do not account for the window's tasks (older routers, later grades), return one entry for all.
        """
        if self.stage is not None and window.stage != self.stage:
            self._predict_again()
        self.stage = window.stage
        whole = [_counts(window)]
        if not (window.candidate_cells or window.baseline_cells):
            return whole
        self.reported = True
        if not _covers(window):
            self._weigh(window)
            return whole
        classes = self._split(window)
        self._observe(window)
        self._weigh(window)
        self._expect(window)
        return classes

    def take_alone(self, window: ClosedWindow) -> list[Counts]:
        """Return the candidate's counts in a window without a baseline, without heavy cells. Learns nothing from it."""
        cells = window.candidate_cells
        if not cells or not _covers(window):
            return [_counts(window)]
        kept = [group for cell, group in cells.items() if cell not in self.left_out]
        return [(sum(group.tasks for group in kept), sum(group.failures for group in kept), 0, 0)]

    def _expect(self, window: ClosedWindow) -> None:
        """Add the failures to expect from the baseline's present units, including heavy ones, given their past."""
        for cell, group in window.baseline_cells.items():
            n1, x1, n2, x2 = self.before.get(cell, (0, 0, 0, 0))
            heavy = cell in self.left_out and n1 + n2
            rate = (x1 + x2) / (n1 + n2) if heavy else self.prediction.rate(cell)
            self.level[0] += group.tasks
            self.level[1] += group.tasks * rate

    @property
    def baseline_level(self) -> float | None:
        return self.level[1] / self.level[0] if self.level[0] else None

    def _split(self, window: ClosedWindow) -> list[Counts]:
        for cell, group in window.candidate_cells.items():
            self.ours[cell] = self.ours.get(cell, 0) + group.tasks
        split: dict[int, list[int]] = {}
        for place, cells in ((0, window.candidate_cells), (2, window.baseline_cells)):
            for cell, group in cells.items():
                if cell not in self.left_out:
                    counts = split.setdefault(self.prediction.kind(cell), [0, 0, 0, 0])
                    counts[place] += group.tasks
                    counts[place + 1] += group.failures
        return [(nt, xt, nc, xc) for nt, xt, nc, xc in split.values()]

    def _observe(self, window: ClosedWindow) -> None:
        """Compare the baseline's cells with their predictions, scaled to the window's overall failure level."""
        cells = {
            cell: g for cell, g in window.baseline_cells.items() if cell not in self.left_out and g.tasks
        }
        rates = {cell: self._rate(cell, window) for cell in cells}
        expected = sum(group.tasks * rates[cell] for cell, group in cells.items())
        failures = sum(group.failures for group in cells.values())
        level = failures / expected if expected else 1.0
        for cell, group in cells.items():
            rate = min(rates[cell] * level, 0.999)
            kept = self.seen.setdefault(cell, [0.0, 0.0, 0.0, 0.0])
            kept[0] += group.tasks
            kept[1] += group.failures
            kept[2] += group.tasks * rate
            kept[3] += group.tasks * rate * (1 - rate)

    def _rate(self, cell: int, window: ClosedWindow) -> float:
        rate = self.prediction.rate(cell)
        graded = window.baseline.graded
        return rate or (window.baseline.failures / graded if graded else 0.0)

    def _weigh(self, window: ClosedWindow) -> None:
        """Exclude cells that have become heavy, from the next window on. Only task counts of both arms matter."""
        tasks: dict[int, int] = {}
        for cells in (window.candidate_cells, window.baseline_cells):
            for cell, group in cells.items():
                tasks[cell] = tasks.get(cell, 0) + group.tasks
        self._decay(window)
        before, total = sum(self.recent.values()), sum(tasks.values())
        for cell, n in tasks.items():
            was = self.recent.get(cell, 0.0) / before if before else 0.0
            arrived = was < WAS_LIGHT and n >= ARRIVED * total and n >= ARRIVED_TASKS
            if arrived and before:
                self.left_out.add(cell)
            self.recent[cell] = self.recent.get(cell, 0.0) + n
            self.tasks[cell] = self.tasks.get(cell, 0) + n
        limit = HEAVY_HOUR * (before + total)
        if before + total >= _PRIOR_TASKS:
            self.left_out.update(cell for cell, n in self.recent.items() if n > limit)

    def _decay(self, window: ClosedWindow) -> None:
        minute = window.last_minute
        passed = 1 if self.recent_minute is None else max(0, minute - self.recent_minute)
        self.recent_minute = minute if self.recent_minute is None else max(minute, self.recent_minute)
        factor = (1 - 1 / _HOUR) ** passed
        self.level = [value * factor for value in self.level]
        self.recent = {cell: n * factor for cell, n in self.recent.items() if n * factor > 0.01}

    def _predict_again(self) -> None:
        """Predict the rates again at a new share. The baseline's tasks so far are the second half of the past.

        Outliers are excluded.
        """
        limit = _OUTLIER * self.residual * _ROUNDED
        for cell, (_, x, expected, variance) in self.seen.items():
            if (x - expected) ** 2 > limit * variance:
                self.left_out.add(cell)
        cells: dict[int, tuple[int, int, int, int]] = {}
        for cell in {*self.before, *self.seen}:
            n1, x1, n2, x2 = self.before.get(cell, (0, 0, 0, 0))
            n, x, *_ = self.seen.get(cell, (0.0, 0.0, 0.0, 0.0))
            cells[cell] = (n1 + n2, x1 + x2, round(n), round(x))
        self.prediction = predict(_without(cells, self.left_out))

    @property
    def residual(self) -> float:
        """The design effect that remains in the baseline's cells after the prediction."""
        cells = (kept for cell, kept in self.seen.items() if cell not in self.left_out)
        return residual_design_effect((x, expected, variance) for _, x, expected, variance in cells)

    @property
    def design_effect(self) -> float:
        """The design effect of the comparison, adjusted for the sizes of the units in each arm."""
        theirs = [(kept[0], self.tasks.get(c, 0)) for c, kept in self.seen.items() if c not in self.left_out]
        ours = [(n, self.tasks.get(c, 0)) for c, n in self.ours.items() if c not in self.left_out]
        return compared_design_effect(self.residual, ours, theirs)

    @property
    def spread(self) -> float:
        """The sum of squared traffic shares of the units, that is 1 / (effective number of units)."""
        empty = max(0, CELLS - len(self.tasks))
        return unit_spread([*self.tasks.values(), *[0] * empty]) if self.tasks else 0.0

    def share_left_out(self) -> float:
        """Return the share of the recent traffic in excluded cells."""
        total = sum(self.recent.values())
        return sum(self.recent.get(cell, 0.0) for cell in self.left_out) / total if total else 0.0

    def dump(self) -> dict[str, Any]:
        return {
            "left_out": sorted(self.left_out),
            "recent": {str(cell): round(n, 6) for cell, n in self.recent.items()},
            "recent_minute": self.recent_minute,
            "tasks": {str(cell): n for cell, n in self.tasks.items()},
            "ours": {str(cell): n for cell, n in self.ours.items()},
            "seen": {str(cell): [round(value, 8) for value in kept] for cell, kept in self.seen.items()},
            "stage": self.stage,
            "reported": self.reported,
            "level": [round(value, 6) for value in self.level],
            "mean": self.prediction.mean,
            "persistent": self.prediction.persistent,
            "rates": {str(cell): round(rate, 9) for cell, rate in self.prediction.rates.items()},
        }

    @classmethod
    def load(cls, reference: Reference, data: Mapping[str, Any]) -> Self:
        rates = {int(cell): rate for cell, rate in data["rates"].items()}
        return cls(
            reference.cells,
            set(data["left_out"]),
            {int(cell): n for cell, n in data["recent"].items()},
            data["recent_minute"],
            {int(cell): list(kept) for cell, kept in data["seen"].items()},
            {int(cell): n for cell, n in data["tasks"].items()},
            {int(cell): n for cell, n in data["ours"].items()},
            data["stage"],
            data["reported"],
            list(data["level"]),
            Prediction(data["mean"], rates, data["persistent"]),
        )


def _counts(window: ClosedWindow) -> Counts:
    t, c = window.candidate, window.baseline
    return t.graded, t.failures, c.graded, c.failures


def _covers(window: ClosedWindow) -> bool:
    """Return whether the cells account for (nearly) all graded tasks and failures of both arms, and no more."""
    arms: Sequence[tuple[Mapping[int, Group], int, int]] = (
        (window.candidate_cells, window.candidate.graded, window.candidate.failures),
        (window.baseline_cells, window.baseline.graded, window.baseline.failures),
    )
    for cells, graded, failures in arms:
        n, x = sum(g.tasks for g in cells.values()), sum(g.failures for g in cells.values())
        if not _COVERED * graded <= n <= graded / _COVERED or not _COVERED * failures <= x:
            return False
    return True


def _without(
    cells: Mapping[int, tuple[int, int, int, int]], left_out: set[int]
) -> dict[int, tuple[int, int, int, int]]:
    return {cell: counts for cell, counts in cells.items() if cell not in left_out}
