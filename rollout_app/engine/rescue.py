"""Evidence of harm from failures alone, for when an evaluation fails. Pure.

A failing evaluation must not keep a harmful candidate in traffic, so this shares no code with the measures: each
stratum's likelihood ratio is summed term by term, from plain counts of failures. Its evidence is one part of what a
full evaluation weighs (all tasks since the start, at that part's lowest weight), so this check does not raise the
false alarm rate. Sticky units differ among themselves: for them only harm beyond an odds ratio of 6 counts, as in
`measures.rates`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

# The lowest weight that failures of all tasks since the start can have within the guardrail; and, for sticky
# units, the weight of harm beyond what units differ by.
PART, STICKY_PART = 0.38, 0.05
GRID = ((1.2, 0.15), (1.5, 0.30), (2.0, 0.30), (3.0, 0.15), (6.0, 0.06), (25.0, 0.04))
STICKY_GRID, STICKY_NULL = ((12.0, 0.4), (25.0, 0.3), (100.0, 0.3)), 6.0
ENOUGH = math.log(20)
_TASKS, _MINUTES = 50, 60  # limits of a stratum, as for windows


@dataclass(frozen=True, slots=True)
class PlainMinute:
    """Graded tasks, failures and ungraded tasks of both arms in one minute of one stage."""

    stage: int
    minute: int
    nt: int = 0
    xt: int = 0
    ungraded_t: int = 0
    nc: int = 0
    xc: int = 0
    ungraded_c: int = 0

    def with_more(self, other: "PlainMinute") -> "PlainMinute":
        return replace(
            self,
            nt=self.nt + other.nt, xt=self.xt + other.xt, ungraded_t=self.ungraded_t + other.ungraded_t,
            nc=self.nc + other.nc, xc=self.xc + other.xc, ungraded_c=self.ungraded_c + other.ungraded_c,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class PlainHarm:
    """What failures alone show. `difference`: the best case for ungraded tasks; `log_e`: weighted."""

    log_e: float
    difference: float
    tasks: int
    failures: int

    def as_dict(self) -> dict[str, float]:
        return {
            "log_e": self.log_e, "difference": self.difference, "tasks": self.tasks, "failures": self.failures
        }  # fmt: skip

    def reaches(self, margin: float) -> bool:
        return self.log_e >= ENOUGH and self.difference >= margin


def failures_alone(
    minutes: Iterable[PlainMinute], *, weight: float, deff: float = 1.0, sticky: bool = False
) -> PlainHarm | None:
    """Return the evidence that the candidate fails more, or None without a comparison. `weight`: the guardrail's."""
    strata = [one for one in _strata(minutes) if one.nt and one.nc]
    nt, nc = sum(one.nt for one in strata), sum(one.nc for one in strata)
    if not strata:
        return None
    xt, xc = sum(one.xt for one in strata), sum(one.xc for one in strata)
    excess = _excess(strata, nt, nc)
    denominator = sum(one.nt * one.nc / (one.nt + one.nc) for one in strata)
    numerator = sum((one.xt * one.nc - one.xc * one.nt) / (one.nt + one.nc) for one in strata)
    pt, pc = xt / nt, xc / nc
    difference = numerator / denominator - (excess * pt if excess > 0 else -excess * (1 - pc))
    grid, null = (STICKY_GRID, STICKY_NULL) if sticky else (GRID, _best_case_odds(pc, excess))
    terms = [
        math.log(w) + sum(_llr(one, psi) - _llr(one, null) for one in strata) / (1.0 if sticky else deff)
        for psi, w in grid
        if psi > null
    ]
    log_e = _log_sum(terms) if terms else 0.0
    weight *= STICKY_PART if sticky else PART
    return PlainHarm(log_e + math.log(weight), difference, nt, xt)


def _strata(minutes: Iterable[PlainMinute]) -> list[PlainMinute]:
    """Join minutes of one stage until they hold enough tasks or span an hour."""
    strata: list[PlainMinute] = []
    for one in sorted(minutes, key=lambda one: (one.stage, one.minute)):
        last = strata[-1] if strata else None
        joins = (
            last is not None
            and last.stage == one.stage
            and one.minute - last.minute < _MINUTES
            and last.nt + last.nc + last.ungraded_t + last.ungraded_c < _TASKS
        )
        if last is not None and joins:
            strata[-1] = last.with_more(one)
        else:
            strata.append(one)
    return strata


def _excess(strata: Sequence[PlainMinute], nt: int, nc: int) -> float:
    """Return the share of the candidate's tasks that lack a grade beyond the baseline's share; negative: the
    other way.
    """
    ut, uc = sum(one.ungraded_t for one in strata), sum(one.ungraded_c for one in strata)
    share_t, share_c = ut / (nt + ut), uc / (nc + uc)
    return (share_t - share_c) / (1 - min(share_t, share_c))


def _best_case_odds(pc: float, excess: float) -> float:
    """Return the odds ratio, at least 1, that equal arms show if the excess of missing grades went the best way."""
    if not excess or not 0 < pc < 1:
        return 1.0
    shown = pc / (1 - excess) if excess > 0 else pc * (1 + excess) - excess
    return shown / (1 - shown) / (pc / (1 - pc)) if shown < 1 else math.inf


def _llr(one: PlainMinute, psi: float) -> float:
    """Return xT ln psi - ln sum_j h(j) psi^j, h hypergeometric (R. Turner, P. Grünwald, arXiv 2302.11401)."""
    bad = one.xt + one.xc
    if not 0 < bad < one.nt + one.nc or psi == 1:
        return 0.0
    log_psi = math.log(psi)
    low, high = max(0, bad - one.nc), min(bad, one.nt)
    weights = [_choose(one.nt, j) + _choose(one.nc, bad - j) for j in range(low, high + 1)]
    tilted = [weight + j * log_psi for j, weight in zip(range(low, high + 1), weights, strict=True)]
    return one.xt * log_psi - _log_sum(tilted) + _log_sum(weights)


def _choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_sum(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))
