"""Compare the shares of tasks with missing data between the arms, so that missing data never makes an arm look good.

There are four kinds: unfinished (decided, never reported), late (reported after their window closed), ungraded and
unpriced. A significant difference holds the rollout. A fifth kind, differing, is not missing data: both arms' routers
must find the same share of tasks on which the policies differ, or the comparison of these tasks cannot be trusted.
"""

import math
from collections.abc import Mapping
from operator import sub
from typing import Any

from rollout_app.engine.evidence import ArmSums, ClosedWindow, Differing, Late
from rollout_app.engine.measures.sufficient import Counts, RateStatistics
from rollout_app.engine.stats.combine import LOG_SAFE
from rollout_app.engine.stats.rates import HARM_LOG_WEIGHTS, HARM_PSIS, log_mixture
from rollout_app.engine.stats.srm import LOG_MISMATCH
from rollout_app.engine.values import value

UNFINISHED, LATE, UNGRADED, UNPRICED, DIFFERING = "unfinished", "late", "ungraded", "unpriced", "differing"
MISSING = (UNFINISHED, LATE, UNGRADED, UNPRICED)
LEAST_DIFFERENCE = 0.01  # one point; a smaller difference does not hold a rollout
_KNOWN = 0.95  # share of tasks for which routers must report whether they differ
_BOTH_WAYS = (*HARM_PSIS, *(1 / psi for psi in HARM_PSIS))
_LOG_WEIGHTS = tuple(weight - math.log(2) for weight in (*HARM_LOG_WEIGHTS, *HARM_LOG_WEIGHTS))


@value(frozen=True, slots=True)
class ShareVerdict:
    """One share in both arms. `shown`: the arms differ by more than chance explains."""

    kind: str
    candidate: float
    baseline: float
    n_candidate: int
    n_baseline: int
    difference: float  # Mantel-Haenszel, candidate minus baseline
    log_e: float
    shown: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind, "candidate": self.candidate, "baseline": self.baseline,
            "n_candidate": self.n_candidate, "n_baseline": self.n_baseline, "difference": self.difference,
            "log_e": self.log_e, "shown": self.shown,
        }  # fmt: skip


def decided(arm: ArmSums) -> int | None:
    """Return the number of decisions of the arm, or None if not all of its routers reported it.

    Fewer decisions than tasks mean that some routers did not report theirs.
    """
    return arm.decided if arm.decided is not None and arm.decided >= arm.tasks else None


def expected(arm: ArmSums) -> int:
    """Return the number of expected tasks: the decisions, or the reported tasks if decisions are not known."""
    known = decided(arm)
    return arm.tasks if known is None else known


def both_expected(window: ClosedWindow) -> tuple[int, int]:
    """Return the expected tasks of the candidate and of the baseline.

    Decisions count only if they are known for both arms: otherwise one arm alone would seem to miss tasks.
    """
    t, c = window.candidate, window.baseline
    dt, dc = (0 if arm.decided is None and not arm.tasks else decided(arm) for arm in (t, c))
    return (t.tasks, c.tasks) if dt is None or dc is None else (dt, dc)


class Shares:
    """The counts behind the shares, over all percentage stages."""

    def __init__(self) -> None:
        self.kinds: dict[str, RateStatistics] = {}
        self.late: dict[int, Late] = {}  # late reports counted so far, by stage
        # The same of the full stage: there is no baseline to compare with.
        self.late_alone: dict[int, Late] = {}
        self.judged: dict[int, tuple[int, int]] = {}  # tasks per arm that were on time, by stage
        self.tasks = 0
        self.known_to_differ_or_not = 0

    def take(self, window: ClosedWindow) -> None:
        """Add one closed window of a percentage stage."""
        t, c = window.candidate, window.baseline
        dt, dc = decided(t), decided(c)
        if dt is not None and dc is not None:
            self._add(UNFINISHED, (dt, dt - t.tasks, dc, dc - c.tasks))
        self._add(UNGRADED, (t.tasks, max(0, t.tasks - t.graded), c.tasks, max(0, c.tasks - c.graded)))
        self._add(UNPRICED, (t.tasks, max(0, t.tasks - t.cost_n), c.tasks, max(0, c.tasks - c.cost_n)))
        self.tasks += t.tasks + c.tasks
        nt, nc = self.judged.get(window.stage, (0, 0))
        self.judged[window.stage] = nt + t.tasks, nc + c.tasks
        a, b = window.candidate_differing, window.baseline_differing
        if a is not None and b is not None:
            self.known_to_differ_or_not += a.known_of + b.known_of
            self._add(DIFFERING, (a.known_of, _differing(a), b.known_of, _differing(b)))

    def take_late(self, late: Mapping[int, Late], *, alone: bool = False) -> list[Late]:
        """Add the late reports since the last call, and return them, one entry per stage with new ones."""
        news, counts = [], self.late_alone if alone else self.late
        for stage, now in late.items():
            known = counts.get(stage, Late())
            # A figure falls if its minutes were pruned, or if a late grade turns out to be a late task's.
            counted = Late(*map(max, now.figures, known.figures))
            if counted != known:
                news.append(Late(*map(sub, counted.figures, known.figures)))
                counts[stage] = counted
        return news

    def _late(self) -> RateStatistics:
        """Return the late tasks and grades of all tasks so far: one stratum for each stage.

        They are counted anew, because a report is later than the tasks that it belongs to.
        """
        stats = RateStatistics(_BOTH_WAYS)
        for stage, late in self.late.items():
            nt, nc = self.judged.get(stage, (0, 0))
            nt, nc = nt + late.candidate, nc + late.baseline
            xt, xc = late.candidate + late.candidate_grades, late.baseline + late.baseline_grades
            stats.add((nt, min(xt, nt), nc, min(xc, nc)))
        return stats

    def _add(self, kind: str, counts: Counts) -> None:
        stats = self.kinds.get(kind)
        if stats is None:
            stats = self.kinds[kind] = RateStatistics(_BOTH_WAYS)
        stats.add(counts)

    def verdicts(self, deff: float) -> tuple[ShareVerdict, ...]:
        kinds = self.kinds | ({LATE: self._late()} if self.late else {})
        return tuple(_verdict(kind, kinds[kind], deff) for kind in MISSING if kind in kinds)

    # --- differing tasks -------------------------------------------------------------------------------

    @property
    def differing(self) -> tuple[float, int] | None:
        """(Share of differing tasks, number of tasks it is based on), or None if too few routers report it."""
        stats = self.kinds.get(DIFFERING)
        n = stats.nt + stats.nc if stats else 0
        if stats is None or not n or self.known_to_differ_or_not < _KNOWN * self.tasks:
            return None
        return (stats.xt + stats.xc) / n, n

    def differing_mismatch(self, deff: float) -> ShareVerdict | None:
        """Return the shares of differing tasks if the arms disagree, tested as strictly as the sample ratio."""
        stats = self.kinds.get(DIFFERING)
        if stats is None or _log_e(stats, deff) < LOG_MISMATCH:
            return None
        return _verdict(DIFFERING, stats, deff)

    # --- storage ---------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        data = {
            "kinds": {kind: stats.dump() for kind, stats in self.kinds.items()},
            "late": _dumped(self.late),
            "judged": {str(stage): list(tasks) for stage, tasks in self.judged.items()},
            "tasks": [self.tasks, self.known_to_differ_or_not],
        }
        return data | ({"late alone": _dumped(self.late_alone)} if self.late_alone else {})

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> "Shares":
        shares = cls()
        shares.kinds = {
            kind: RateStatistics.load(_BOTH_WAYS, dumped)
            for kind, dumped in data.get("kinds", {}).items()
            if kind != LATE  # stored by earlier releases
        }
        for late, name in ((shares.late, "late"), (shares.late_alone, "late alone")):
            late.update((int(stage), Late(*counts)) for stage, counts in data.get(name, {}).items())
        shares.judged = {int(stage): (nt, nc) for stage, (nt, nc) in data.get("judged", {}).items()}
        shares.tasks, shares.known_to_differ_or_not = data.get("tasks", (0, 0))
        return shares


def _dumped(late: Mapping[int, Late]) -> dict[str, list[int]]:
    return {str(stage): list(one.figures) for stage, one in late.items()}


def _differing(arm: Differing) -> int:
    return min(arm.known_of, sum(sums.tasks for sums in arm.pairs.values()))


def _log_e(stats: RateStatistics, deff: float) -> float:
    """Return ln E against "the shares are equal", in both directions."""
    return log_mixture(stats.llr, _LOG_WEIGHTS, deff)


def _verdict(kind: str, stats: RateStatistics, deff: float) -> ShareVerdict:
    log_e, difference = _log_e(stats, deff), stats.difference or 0.0
    shown = log_e >= LOG_SAFE and abs(difference) >= LEAST_DIFFERENCE
    candidate, baseline = (x / n if n else 0.0 for x, n in ((stats.xt, stats.nt), (stats.xc, stats.nc)))
    return ShareVerdict(kind, candidate, baseline, stats.nt, stats.nc, difference, log_e, shown)
