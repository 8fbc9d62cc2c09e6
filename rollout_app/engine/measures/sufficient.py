"""Sufficient statistics of the judged windows, so that an evaluation only has to read the new ones.

Sums are the same whether windows are added at once or one by one, and take a few dozen numbers whatever the traffic.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Any, Self

from rollout_app.engine.stats import missing
from rollout_app.engine.stats.rates import UNSEEN, mantel_haenszel, stratum_llrs
from rollout_app.engine.stats.ratios import Contrast, Errors, Moments, contrast, squared_errors

_UNUSED = 0.0  # the place of a figure in the stored format that is no longer used
Counts = tuple[int, int, int, int]  # tasks and bad tasks of the candidate, then of the baseline


@dataclass(slots=True)
class RateStatistics:
    """x bad of n tasks per arm, the Mantel-Haenszel sums, and the log likelihood ratio at each odds ratio in `psis`.

    `psis` begin with HARM_PSIS; those of rate guardrails go on with SAFE_PSIS.
    """

    psis: tuple[float, ...]
    nt: int = 0
    xt: int = 0
    nc: int = 0
    xc: int = 0
    mh_numerator: float = 0.0
    mh_denominator: float = 0.0
    llr: list[float] = field(default_factory=list)  # in the order of psis

    def __post_init__(self) -> None:
        self.llr = self.llr or [0.0] * len(self.psis)

    def add(self, counts: Counts) -> None:
        """Add one closed window."""
        self.take(RateStep(counts, self.psis))

    def take(self, step: "RateStep") -> None:
        """Add one closed window, given its precomputed step."""
        nt, xt, nc, xc = step.counts
        if step.tells:
            self.llr = list(map(add, self.llr, step.llrs))
        self.nt, self.xt, self.nc, self.xc = self.nt + nt, self.xt + xt, self.nc + nc, self.xc + xc
        self.mh_numerator += step.numerator
        self.mh_denominator += step.denominator

    def merge(self, other: Self) -> None:
        self.nt, self.xt = self.nt + other.nt, self.xt + other.xt
        self.nc, self.xc = self.nc + other.nc, self.xc + other.xc
        self.mh_numerator += other.mh_numerator
        self.mh_denominator += other.mh_denominator
        self.llr = list(map(add, self.llr, other.llr))

    @property
    def difference(self) -> float | None:
        """The Mantel-Haenszel difference of the rates, candidate minus baseline."""
        return self.mh_numerator / self.mh_denominator if self.mh_denominator else None

    def after(self, stretch: float, kept: float) -> "RateStatistics":
        """Extrapolate by `stretch` times as many tasks that show `kept` (0 … 1) of the difference so far.

        A window's log likelihood ratio is the candidate's bad tasks times ln psi, minus a term that depends only on the
        totals. The Mantel-Haenszel numerator is the number of the candidate's bad tasks beyond its share of all.
        """
        lost = (1 - kept) * self.mh_numerator
        llr = [
            value + stretch * (value - lost * math.log(psi))
            for psi, value in zip(self.psis, self.llr, strict=True)
        ]
        more = 1 + stretch
        return RateStatistics(
            self.psis,
            round(more * self.nt),
            max(0, round(more * self.xt - stretch * lost)),
            round(more * self.nc),
            round(more * self.xc),
            self.mh_numerator + stretch * kept * self.mh_numerator,
            more * self.mh_denominator,
            llr,
        )

    def dump(self) -> list[float]:
        counts = [self.nt, self.xt, self.nc, self.xc, self.mh_numerator, self.mh_denominator]
        return [*counts, _UNUSED, *self.llr]

    @classmethod
    def load(cls, psis: tuple[float, ...], data: Sequence[Any]) -> Self:
        nt, xt, nc, xc, numerator, denominator, _ = data[:7]
        return cls(psis, nt, xt, nc, xc, numerator, denominator, list(data[7:]))

    @classmethod
    def load_older(cls, psis: tuple[float, ...], data: Sequence[Any]) -> Self:
        """Load evidence of format 4, which lacks the odds ratios that were added later."""
        llr = list(data[6:])
        nt, xt, nc, xc, numerator, denominator = data[:6]
        llr += [UNSEEN] * (len(psis) - len(llr))
        return cls(psis, nt, xt, nc, xc, numerator, denominator, llr)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, for a verdict."""
        return {
            "candidate": {"n": self.nt, "x": self.xt},
            "baseline": {"n": self.nc, "x": self.xc},
            "mh": [self.mh_numerator, self.mh_denominator],
            "llr": [[psi, llr] for psi, llr in zip(self.psis, self.llr, strict=True)],
        }


class RateStep:
    """The contribution of one closed window, computed once for all statistics that add it."""

    __slots__ = ("counts", "denominator", "llrs", "numerator", "tells")

    def __init__(self, counts: Counts, psis: Sequence[float]) -> None:
        nt, xt, nc, xc = self.counts = counts
        self.numerator, self.denominator = mantel_haenszel([counts])
        self.tells = bool(nt and nc and 0 < xt + xc < nt + nc)
        self.llrs = stratum_llrs(nt, xt, nc, xc, psis) if self.tells else ()


@dataclass(slots=True)
class MissingStatistics:
    """The number of tasks without some figure, of n tasks per arm, and the Mantel-Haenszel sums of the difference."""

    mt: int = 0
    nt: int = 0
    mc: int = 0
    nc: int = 0
    mh_numerator: float = 0.0
    mh_denominator: float = 0.0

    def add(self, mt: int, nt: int, mc: int, nc: int) -> None:
        self.take((mt, nt, mc, nc), mantel_haenszel([(nt, mt, nc, mc)]))

    def take(self, counts: Counts, sums: tuple[float, float]) -> None:
        """Add one closed window, given its Mantel-Haenszel sums."""
        mt, nt, mc, nc = counts
        self.mt, self.nt, self.mc, self.nc = self.mt + mt, self.nt + nt, self.mc + mc, self.nc + nc
        self.mh_numerator += sums[0]
        self.mh_denominator += sums[1]

    def add_alone(self, mt: int, nt: int, before: "MissingStatistics") -> None:
        """Add tasks of the candidate beside which no baseline ran, compared with the baseline's share so far.

        `before` holds that share if these statistics have no baseline of their own yet.
        """
        if not self.nc:
            self.mc, self.nc = before.mc, before.nc
        self.take((mt, nt, 0, 0), mantel_haenszel([(nt, mt, self.nc, self.mc)]))

    def add_later(self, mt: int, mc: int) -> None:
        """Count tasks that are not among the n so far, as missing: as if they had been in the windows from the first.

        With one window, the sums are those of that window with these tasks.
        """
        n, more = self.nt + self.nc, self.nt + self.nc + mt + mc
        if self.nt and self.nc:
            gained = mt * (self.nc - self.mc) - mc * (self.nt - self.mt)
            self.mh_numerator = (self.mh_numerator * n + gained) / more
            self.mh_denominator *= (1 + mt / self.nt) * (1 + mc / self.nc) * n / more
        self.mt, self.nt, self.mc, self.nc = self.mt + mt, self.nt + mt, self.mc + mc, self.nc + mc

    def after(self, stretch: float) -> "MissingStatistics":
        """Extrapolate by `stretch` times as many tasks with the same shares."""
        more = 1 + stretch
        mt, nt, mc, nc = (round(more * n) for n in (self.mt, self.nt, self.mc, self.nc))
        return MissingStatistics(mt, nt, mc, nc, more * self.mh_numerator, more * self.mh_denominator)

    def excess(self, z: float, deff: float = 1.0) -> missing.Excess:
        if not self.mh_denominator or not self.mt + self.mc:
            return missing.NONE
        difference = self.mh_numerator / self.mh_denominator
        weight = self.mh_denominator / deff
        return missing.excess(difference, weight, (self.mt, self.nt), (self.mc, self.nc), z)

    def dump(self) -> list[float]:
        return [self.mt, self.nt, self.mc, self.nc, self.mh_numerator, self.mh_denominator]

    def as_dict(self) -> dict[str, Any]:
        return {
            "candidate": {"n": self.nt, "missing": self.mt},
            "baseline": {"n": self.nc, "missing": self.mc},
            "mh": [self.mh_numerator, self.mh_denominator],
        }


@dataclass(slots=True)
class RatioStatistics:
    """Moments per arm and the contrast between them."""

    candidate: Moments = field(default_factory=Moments)
    baseline: Moments = field(default_factory=Moments)
    contrast: Contrast = field(default_factory=Contrast)
    uncapped_a: float = 0.0  # the contrast's a and b from uncapped costs
    uncapped_b: float = 0.0
    uncapped_y: float = 0.0  # the candidate's uncapped cost
    # cache of the last (design effect, squared errors), which an evaluation needs several times
    errors: tuple[float, Errors | None] | None = field(default=None, compare=False)

    def squared_errors(self, deff: float) -> Errors | None:
        """Return the squared standard errors of ln ratio: as observed, and for a claim of safety."""
        if self.errors is None or self.errors[0] != deff:
            self.errors = deff, squared_errors(self.contrast, self.candidate, self.baseline, deff)
        return self.errors[1]

    def add(self, candidate: Moments, baseline: Moments, uncapped: tuple[int, int] | None = None) -> None:
        """Add one closed window. `uncapped` is y of both arms before capping, if there is a cap."""
        self.errors = None
        self.contrast += contrast(candidate, baseline)
        if uncapped:
            d = candidate.d + baseline.d
            if d > 0:
                self.uncapped_a += uncapped[0] * (baseline.d / d)
                self.uncapped_b += uncapped[1] * (candidate.d / d)
            self.uncapped_y += uncapped[0]
        self.candidate += candidate
        self.baseline += baseline

    def merge(self, other: Self) -> None:
        self.errors = None
        self.contrast += other.contrast
        self.uncapped_a += other.uncapped_a
        self.uncapped_b += other.uncapped_b
        self.uncapped_y += other.uncapped_y
        self.candidate += other.candidate
        self.baseline += other.baseline

    def after(self, stretch: float, factor: float) -> "RatioStatistics":
        """Extrapolate by `stretch` times as many tasks, with the candidate's cost multiplied by `factor`."""
        more = 1 + stretch
        t, c, between = self.candidate, self.baseline, self.contrast
        full = [more * value for value in self._uncapped]
        candidate = Moments(
            more * t.n,
            more * t.y * factor,
            more * t.d,
            more * t.yy * factor * factor,
            more * t.yd * factor,
            more * t.dd,
        )
        return RatioStatistics(
            candidate,
            Moments(*(more * value for value in c.figures)),
            Contrast(more * between.a * factor, more * between.b, more * between.qa, more * between.qb),
            full[0] * factor,
            full[1],
            full[2] * factor,
        )

    @property
    def uncapped_ratio(self) -> float | None:
        """The ratio of the candidate's uncapped figure to the baseline's; None if they were not recorded."""
        return self.uncapped_a / self.uncapped_b if self.uncapped_a > 0 and self.uncapped_b > 0 else None

    @property
    def _uncapped(self) -> tuple[float, float, float]:
        return self.uncapped_a, self.uncapped_b, self.uncapped_y

    def dump(self) -> list[float]:
        return [*self.candidate.figures, *self.baseline.figures, *self.contrast.figures, *self._uncapped]

    @classmethod
    def load(cls, data: Sequence[Any]) -> Self:
        return cls(Moments(*data[:6]), Moments(*data[6:12]), Contrast(*data[12:16]), *data[16:])

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name, for a verdict."""
        names = ("n", "y", "d", "yy", "yd", "dd")
        return {
            "candidate": dict(zip(names, self.candidate.figures, strict=True)),
            "baseline": dict(zip(names, self.baseline.figures, strict=True)),
            "contrast": dict(zip(("a", "b", "qa", "qb"), self.contrast.figures, strict=True)),
            "uncapped": dict(zip(("a", "b", "y"), self._uncapped, strict=True)),
        }


SufficientStatistics = RateStatistics | RatioStatistics | MissingStatistics


def merged(parts: Mapping[int, Any], empty: Any, since: int | None = None) -> Any:
    """Merge the statistics of several stages into `empty`: all of them, or those from stage `since` on."""
    for stage, part in parts.items():
        if since is None or stage >= since:
            empty.merge(part)
    return empty
