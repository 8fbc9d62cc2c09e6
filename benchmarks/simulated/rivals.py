"""The usual alternatives, applied to pooled sums: a threshold on the estimate, or a z-test at every evaluation."""

import math

from rollout_app.engine.evidence import ArmSums
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.metrics import Metric, count

RATES = (
    Metric.FAILURE, Metric.ERROR, Metric.ESCALATION, Metric.FALLBACK, Metric.RETRY, Metric.LATENCY_TAIL,
)  # fmt: skip
MARGINS = {g.metric: g.margin for g in guardrails_for()}


class Rivals:
    """Receives the same data as the engine, and records which alternatives would have rolled back."""

    def __init__(self) -> None:
        self.sums = {metric: [0, 0, 0, 0] for metric in RATES}
        self.hour: list[tuple[int, ...]] = []
        self.threshold: set[Metric] = set()
        self.z: set[Metric] = set()

    @property
    def fired(self) -> tuple[bool, bool, bool, bool]:
        """Whether each would have rolled back: threshold on failures, on any rate; z-test on failures, on any rate."""
        return Metric.FAILURE in self.threshold, bool(self.threshold), Metric.FAILURE in self.z, bool(self.z)

    def take(self, candidate: ArmSums, baseline: ArmSums) -> None:
        self.hour.append(baseline.health)
        for metric, sums in self.sums.items():
            for i, value in enumerate((*count(metric, candidate), *count(metric, baseline))):
                sums[i] += value
            nt, xt, nc, xc = sums
            if nt < 50 or not nc:
                continue
            difference, p = xt / nt - xc / nc, (xt + xc) / (nt + nc)
            if difference >= MARGINS[metric]:
                self.threshold.add(metric)
            error = math.sqrt(p * (1 - p) * (1 / nt + 1 / nc))
            if error and difference / error > 1.645:
                self.z.add(metric)

    def last_hour(self, evaluations: int) -> ArmSums:
        del self.hour[:-evaluations]
        return ArmSums.from_health(map(sum, zip(*self.hour, strict=True)))
