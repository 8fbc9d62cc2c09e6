"""What is kept of the strata that were judged: sums, so that a look costs only the new strata.

A sum over strata is the same in one go or one by one, and it is a few dozen numbers whatever the traffic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any, Self

from rollout_app.engine.stats.rates import mantel_haenszel, stratum_llrs
from rollout_app.engine.stats.ratios import Contrast, Moments, contrast


@dataclass(slots=True)
class RateStatistics:
    """x bad of n per arm, the Mantel-Haenszel sums, and the log likelihood ratio at each odds ratio."""

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

    def add(self, nt: int, xt: int, nc: int, xc: int) -> None:
        """Take in one closed stratum."""
        numerator, denominator = mantel_haenszel([(nt, xt, nc, xc)])
        self.nt, self.xt, self.nc, self.xc = self.nt + nt, self.xt + xt, self.nc + nc, self.xc + xc
        self.mh_numerator += numerator
        self.mh_denominator += denominator
        if nt and nc and 0 < xt + xc < nt + nc:
            self.llr = list(map(add, self.llr, stratum_llrs(nt, xt, nc, xc, self.psis)))

    def merge(self, other: Self) -> None:
        self.nt, self.xt = self.nt + other.nt, self.xt + other.xt
        self.nc, self.xc = self.nc + other.nc, self.xc + other.xc
        self.mh_numerator += other.mh_numerator
        self.mh_denominator += other.mh_denominator
        self.llr = list(map(add, self.llr, other.llr))

    def scaled(self, k: float) -> "RateStatistics":
        """As if k times as much had been seen at the same rates."""
        llr = [k * value for value in self.llr]
        nt, xt, nc, xc = (round(k * n) for n in (self.nt, self.xt, self.nc, self.xc))
        return RateStatistics(self.psis, nt, xt, nc, xc, k * self.mh_numerator, k * self.mh_denominator, llr)

    @property
    def difference(self) -> float | None:
        """Mantel-Haenszel, candidate minus baseline."""
        return self.mh_numerator / self.mh_denominator if self.mh_denominator else None

    def dump(self) -> list[float]:
        counts = [self.nt, self.xt, self.nc, self.xc, self.mh_numerator, self.mh_denominator]
        return [*counts, *self.llr]

    @classmethod
    def load(cls, psis: tuple[float, ...], data: Sequence[Any]) -> Self:
        nt, xt, nc, xc, numerator, denominator = data[:6]
        return cls(psis, nt, xt, nc, xc, numerator, denominator, list(data[6:]))

    def as_dict(self) -> dict[str, Any]:
        """For a verdict: names instead of positions."""
        return {
            "candidate": {"n": self.nt, "x": self.xt},
            "baseline": {"n": self.nc, "x": self.xc},
            "mh": [self.mh_numerator, self.mh_denominator],
            "llr": [[psi, llr] for psi, llr in zip(self.psis, self.llr, strict=True)],
        }


@dataclass(slots=True)
class RatioStatistics:
    """Moments per arm and the contrast between them."""

    candidate: Moments = field(default_factory=Moments)
    baseline: Moments = field(default_factory=Moments)
    contrast: Contrast = field(default_factory=Contrast)
    whole_a: float = 0.0  # the contrast's a and b from uncapped costs
    whole_b: float = 0.0
    whole_y: float = 0.0  # the candidate's uncapped cost

    def add(self, candidate: Moments, baseline: Moments, whole: tuple[int, int] | None = None) -> None:
        """Take in one closed stratum; `whole` is y of both arms before any cap, where there is one."""
        self.contrast += contrast(candidate, baseline)
        if whole:
            uncapped = contrast(replace(candidate, y=whole[0]), replace(baseline, y=whole[1]))
            self.whole_a += uncapped.a
            self.whole_b += uncapped.b
            self.whole_y += whole[0]
        self.candidate += candidate
        self.baseline += baseline

    def merge(self, other: Self) -> None:
        self.contrast += other.contrast
        self.whole_a += other.whole_a
        self.whole_b += other.whole_b
        self.whole_y += other.whole_y
        self.candidate += other.candidate
        self.baseline += other.baseline

    def scaled(self, k: float) -> "RatioStatistics":
        """As if k times as much had been seen of the same kind."""
        parts = (self.candidate.figures, self.baseline.figures, self.contrast.figures)
        candidate, baseline, between = ([k * value for value in part] for part in parts)
        whole = [k * value for value in self._whole]
        return RatioStatistics(Moments(*candidate), Moments(*baseline), Contrast(*between), *whole)

    @property
    def whole_ratio(self) -> float | None:
        """Of uncapped figures, candidate's over baseline's; None where they were not kept."""
        return self.whole_a / self.whole_b if self.whole_a > 0 and self.whole_b > 0 else None

    @property
    def _whole(self) -> tuple[float, float, float]:
        return self.whole_a, self.whole_b, self.whole_y

    def dump(self) -> list[float]:
        return [*self.candidate.figures, *self.baseline.figures, *self.contrast.figures, *self._whole]

    @classmethod
    def load(cls, data: Sequence[Any]) -> Self:
        return cls(Moments(*data[:6]), Moments(*data[6:12]), Contrast(*data[12:16]), *data[16:])

    def as_dict(self) -> dict[str, Any]:
        """For a verdict: names instead of positions."""
        names = ("n", "y", "d", "yy", "yd", "dd")
        return {
            "candidate": dict(zip(names, self.candidate.figures, strict=True)),
            "baseline": dict(zip(names, self.baseline.figures, strict=True)),
            "contrast": dict(zip(("a", "b", "qa", "qb"), self.contrast.figures, strict=True)),
            "whole": dict(zip(("a", "b", "y"), self._whole, strict=True)),
        }


Sums = RateStatistics | RatioStatistics
