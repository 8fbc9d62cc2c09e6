"""The baseline's figures from before a rollout, fixed at its start: the source of margins, tails and caps."""

from collections.abc import Mapping
from dataclasses import field, fields
from typing import Any, Self

from rollout_app.engine.values import value


@value(frozen=True, slots=True)
class Reference:
    """The baseline before the rollout, fixed at its start. Margins and tails are measured from it."""

    outcomes: int  # graded tasks that it is based on
    rates: Mapping[str, float] = field(default_factory=dict)  # p_ref per rate guardrail's metric
    cost_v: float | None = None  # v_ref: relative variance per task of cost per success
    cost_per_success: float | None = None  # nUSD
    quality_v: float | None = None
    mean_quality: float | None = None
    deff: float = 1.0  # design effect of sticky units on outcomes
    unit_spread: float = 0.0  # sum of squared traffic shares of the units; 0 if every request is a unit
    latency_edge: int | None = None  # histogram bucket index; tail tasks lie in higher buckets
    cost_edge: int | None = None
    cost_cap_nusd: int | None = None
    # (factor on every task's cost, resulting factor on capped costs), ascending: `stats.capped`
    cost_curve: tuple[tuple[float, float], ...] = ()
    cost_kept: float = 1.0  # the share of the cost that remains after capping
    cost_uncapped_v: float | None = None  # like cost_v, without a cap
    # Histogram buckets above whose upper edge about 50, 25 and 10 % of the baseline's costs lie.
    cost_quantiles: tuple[int, int, int] | None = None
    latency_declared: bool = False  # latency_edge is the workload's declared tolerance
    # Which of escalate, retry and fallback the baseline's policy has; None: unknown.
    mechanisms: tuple[str, ...] | None = None
    sticky: bool = False  # the unit is not the request, so a unit's tasks stay in one arm
    # Graded tasks and failures per hash cell in two halves of the earlier time: {cell: (n1, x1, n2, x2)}.
    cells: Mapping[int, tuple[int, int, int, int]] = field(default_factory=dict)

    @property
    def tail_noise(self) -> float:
        """The variance of uncapped costs as a multiple of that of capped costs; at least 1."""
        return max(1.0, self.cost_uncapped_v / self.cost_v) if self.cost_v and self.cost_uncapped_v else 1.0

    def as_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in _REFERENCE_FIELDS}
        return data | {
            "rates": dict(self.rates),
            "cells": {str(cell): list(counts) for cell, counts in self.cells.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known: dict[str, Any] = {_REFERENCE_RENAMED.get(name, name): value for name, value in data.items()}
        known["cost_curve"] = tuple((float(full), float(cut)) for full, cut in known.get("cost_curve", ()))
        known["cells"] = {int(cell): tuple(counts) for cell, counts in known.get("cells", {}).items()}
        for name in ("cost_quantiles", "mechanisms"):
            known[name] = None if known.get(name) is None else tuple(known[name])
        return cls(**known)


_REFERENCE_RENAMED = {"cost_whole_v": "cost_uncapped_v"}  # the name in older rollouts
_REFERENCE_FIELDS = tuple(f.name for f in fields(Reference))
