"""What is kept of the strata that were judged: sums, so that a look costs only the new strata.

A sum over strata is the same in one go or one by one, and it is a few dozen numbers whatever the traffic.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rollout_app.stats.rates import mantel_haenszel, stratum_llrs
from rollout_app.stats.ratios import Contrast, Moments, contrast


@dataclass(slots=True)
class RateSums:
    """x bad of n per arm, the Mantel-Haenszel sums, and the log likelihood ratio at each odds ratio."""

    psis: tuple[float, ...]
    nt: int = 0
    xt: int = 0
    nc: int = 0
    xc: int = 0
    mh_numerator: float = 0.0
    mh_denominator: float = 0.0
    llr: dict[float, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.llr = self.llr or dict.fromkeys(self.psis, 0.0)

    def add(self, nt: int, xt: int, nc: int, xc: int) -> None:
        """Take in one closed stratum."""
        numerator, denominator = mantel_haenszel([(nt, xt, nc, xc)])
        self.nt, self.xt, self.nc, self.xc = self.nt + nt, self.xt + xt, self.nc + nc, self.xc + xc
        self.mh_numerator += numerator
        self.mh_denominator += denominator
        if nt and nc and 0 < xt + xc < nt + nc:
            for psi, llr in zip(self.psis, stratum_llrs(nt, xt, nc, xc, self.psis), strict=True):
                self.llr[psi] += llr

    def merge(self, other: Self) -> None:
        self.nt, self.xt = self.nt + other.nt, self.xt + other.xt
        self.nc, self.xc = self.nc + other.nc, self.xc + other.xc
        self.mh_numerator += other.mh_numerator
        self.mh_denominator += other.mh_denominator
        for psi, llr in other.llr.items():
            self.llr[psi] += llr

    def scaled(self, k: float) -> "RateSums":
        """As if k times as much had been seen at the same rates."""
        llr = {psi: k * value for psi, value in self.llr.items()}
        nt, xt, nc, xc = (round(k * n) for n in (self.nt, self.xt, self.nc, self.xc))
        return RateSums(self.psis, nt, xt, nc, xc, k * self.mh_numerator, k * self.mh_denominator, llr)

    @property
    def difference(self) -> float | None:
        """Mantel-Haenszel, candidate minus baseline."""
        return self.mh_numerator / self.mh_denominator if self.mh_denominator else None

    def dump(self) -> list[float]:
        counts = [self.nt, self.xt, self.nc, self.xc, self.mh_numerator, self.mh_denominator]
        return [*counts, *(self.llr[psi] for psi in self.psis)]

    @classmethod
    def load(cls, psis: tuple[float, ...], data: Sequence[Any]) -> Self:
        nt, xt, nc, xc, numerator, denominator = data[:6]
        return cls(psis, nt, xt, nc, xc, numerator, denominator, dict(zip(psis, data[6:], strict=True)))

    def as_dict(self) -> dict[str, Any]:
        """For a verdict: names instead of positions."""
        return {
            "candidate": {"n": self.nt, "x": self.xt},
            "baseline": {"n": self.nc, "x": self.xc},
            "mh": [self.mh_numerator, self.mh_denominator],
            "llr": [[psi, self.llr[psi]] for psi in self.psis],
        }


@dataclass(slots=True)
class RatioSums:
    """Moments per arm and the contrast between them."""

    candidate: Moments = field(default_factory=Moments)
    baseline: Moments = field(default_factory=Moments)
    contrast: Contrast = field(default_factory=Contrast)

    def add(self, candidate: Moments, baseline: Moments) -> None:
        """Take in one closed stratum."""
        self.contrast += contrast(candidate, baseline)
        self.candidate += candidate
        self.baseline += baseline

    def merge(self, other: Self) -> None:
        self.contrast += other.contrast
        self.candidate += other.candidate
        self.baseline += other.baseline

    def scaled(self, k: float) -> "RatioSums":
        """As if k times as much had been seen of the same kind."""
        parts = (self.candidate.figures, self.baseline.figures, self.contrast.figures)
        candidate, baseline, between = ([k * value for value in part] for part in parts)
        return RatioSums(Moments(*candidate), Moments(*baseline), Contrast(*between))

    def dump(self) -> list[float]:
        return [*self.candidate.figures, *self.baseline.figures, *self.contrast.figures]

    @classmethod
    def load(cls, data: Sequence[Any]) -> Self:
        return cls(Moments(*data[:6]), Moments(*data[6:12]), Contrast(*data[12:]))

    def as_dict(self) -> dict[str, Any]:
        """For a verdict: names instead of positions."""
        names = ("n", "y", "d", "yy", "yd", "dd")
        return {
            "candidate": dict(zip(names, self.candidate.figures, strict=True)),
            "baseline": dict(zip(names, self.baseline.figures, strict=True)),
            "contrast": dict(zip(("a", "b", "qa", "qb"), self.contrast.figures, strict=True)),
        }


Sums = RateSums | RatioSums
