"""A plan's ramp as a picture, and its expected duration for a given traffic. Pure.

The duration is an estimate for a candidate that is as good as its baseline. A stage ends when its minimum minutes and
tasks are reached and the failures show that the next stage's margin holds. With a sequential test of a difference of
two rates, the logarithm of the evidence grows as margin² × information / 2 (A. Tartakovsky, I. Nikiforov, M.
Basseville: Sequential Analysis, 2014). Information accumulates over the stages.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from rollout_app.engine.evidence import SHARE_ALL, Stage
from rollout_app.engine.metrics import Metric
from rollout_app.engine.stats.combine import LOG_SAFE, stage_margin

WIDTH, HEIGHT, FOOT = 560, 150, 22
_MIXTURE = 1.5  # nats: the cost of not knowing the size of the difference


@dataclass(frozen=True, slots=True)
class RampStep:
    """One stage. `minutes`: its expected length, None if unknown; other fields in pixels."""

    label: str
    minutes: float | None
    held: bool  # whether it would reach its time limit first
    x: float
    width: float
    y: float


@dataclass(frozen=True, slots=True)
class Ramp:
    steps: list[RampStep] = field(default_factory=list)
    minutes: float | None = None  # of all stages before full
    width: int = WIDTH
    height: int = HEIGHT
    foot: int = HEIGHT - FOOT


def ramp(stages: Sequence[Stage], *, tasks_per_minute: float | None, failure: float) -> Ramp:
    """Draw the ramp. `failure`: the baseline's share of failures, 0 … 1."""
    lengths = _lengths(stages, tasks_per_minute, min(max(failure, 0.001), 0.999))
    known = [minutes for minutes, _ in lengths if minutes is not None]
    whole = sum(known) if len(known) == len(lengths) else None
    least = WIDTH / (len(stages) + 2) * 0.6  # keeps a short stage readable
    widths = [least + (minutes or 0) for minutes, _ in lengths] if whole is None else [
        least + (minutes or 0) / (whole or 1) * (WIDTH - least * (len(stages) + 1)) for minutes, _ in lengths
    ]  # fmt: skip
    widths.append(least)  # full has no end
    scale = WIDTH / sum(widths)
    steps, x = [], 0.0
    for stage, (minutes, held), width in zip(stages, [*lengths, (0.0, False)], widths, strict=True):
        share = stage.share_pcm / SHARE_ALL
        top = (HEIGHT - FOOT) * (1 - 0.92 * math.sqrt(share)) - 4  # keeps 1 % visible next to 100 %
        steps.append(
            RampStep(stage.label, minutes, held, round(x, 1), round(width * scale, 1), round(top, 1))
        )
        x += width * scale
    return Ramp(steps, whole)


def _lengths(
    stages: Sequence[Stage], tasks_per_minute: float | None, failure: float
) -> list[tuple[float | None, bool]]:
    """Return (minutes, whether its time limit comes first) for every stage but the last."""
    spread, information, found = failure * (1 - failure), 0.0, []
    spec = Metric.FAILURE.spec
    for stage, following in zip(stages, stages[1:], strict=False):
        share = stage.share_pcm / SHARE_ALL
        judged = share if stage.mode == "percentage" else 1.0
        minutes: float | None = stage.min_minutes
        if not tasks_per_minute:
            minutes = None if stage.min_tasks or stage.mode == "percentage" else stage.min_minutes
        elif minutes is not None:
            minutes = max(minutes, stage.min_tasks / (tasks_per_minute * judged))
            if stage.mode == "percentage":
                margin = (
                    stage_margin(spec.margin, spec.cap, following.share_pcm / SHARE_ALL) * following.tolerance
                )
                rate = tasks_per_minute / (spread * (1 / share + 1 / (1 - share)))
                needed = 2 * (LOG_SAFE + _MIXTURE) / margin**2
                minutes = max(minutes, (needed - information) / rate)
                information += minutes * rate
        limit = None if stage.max_hours is None else stage.max_hours * 60
        found.append((minutes, minutes is not None and limit is not None and minutes > limit))
    return found
