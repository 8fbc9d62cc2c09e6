"""The common types of the measures: their input, the conditions of an evaluation, and their output."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Protocol

from rollout_app.engine.evidence import ClosedWindow, SliceSums
from rollout_app.engine.measures.sufficient import Counts
from rollout_app.engine.values import value

logger = logging.getLogger(__name__)
ALL, DIFFERING, EXACT, SHIFT = (
    "all",
    "differing",
    "exact",
    "shift",
)  # names of parts; also "since 3", "slice /x"
CERTAIN = math.log(
    1_000
)  # ln E of a certainty, for example if fewer tasks differ than the margin allows to fail


@value(frozen=True, slots=True)
class Tuning:
    """The weights of the parts of a guardrail's evidence. They add up to 1, so the sum stays an e-process.

    In simulations, the defaults needed the fewest tasks (docs/explanation/statistics.md).
    """

    restart: float = 0.05  # weight of each of three parts: harm since a later stage
    slices: float = 0.10  # share of the remaining weight: the mean over endpoints and route pairs
    differing: float = 0.5  # share of what then remains: the tasks that the two policies treat differently
    exact_cost: float = 0.5  # for cost per success: the shares of costs above calibrated quantiles
    shift: float = 0.05  # for failures of sticky units: far more harm than units can differ by
    least_cost_tasks: int = 50  # tasks per arm with known cost and grade before costs count as evidence


DEFAULT = Tuning()
# A single part with a single test: the plain formulas of the shared vectors.
PLAIN = Tuning(0.0, 0.0, 0.0, 0.0, 0.0, least_cost_tasks=100)
RESTARTS = 3


@value(frozen=True, slots=True)
class WindowView:
    """One closed window in the form that the measures read."""

    window: ClosedWindow
    failures: Sequence[Counts]  # graded tasks and failures, one entry per class of similar units
    no_grade: Counts  # (tasks without a grade, all tasks) of the candidate, the same of the baseline
    no_cost: Counts  # the same for tasks without a cost or a grade
    differing: tuple[SliceSums, SliceSums] | None = None  # candidate's, baseline's; None: not known
    slices: Mapping[str, tuple[SliceSums, SliceSums]] = field(default_factory=dict)
    alone: bool = False  # of the full stage, where no baseline runs at the same time


@value(frozen=True, slots=True)
class Conditions:
    """The conditions under which one evaluation judges all guardrails.

    `differing` is the upper bound of the share of differing tasks. It is None if the share is not known, if all tasks
    differ, or if the arms report different shares: then only all tasks together are judged.
    """

    tuning: Tuning = DEFAULT
    deff: float = 1.0
    differing: float | None = None
    slices: bool = False
    sticky: bool = False
    # By part: the amount to add to ln of cost per success because the arms' units would fail differently anyway.
    success_shift: Mapping[str, float] = field(default_factory=dict)


@value(frozen=True, slots=True)
class HarmPart:
    """One part of a guardrail's evidence of harm. `estimate` assumes the best case for missing data."""

    name: str
    weight: float
    log_e: float
    estimate: float | None = None
    counted: bool = False  # the estimate reaches the margin
    failed: str = (
        ""  # the error's name if it could not be computed: then it is no evidence, and the rollout holds
    )

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "weight": self.weight, "log_e": self.log_e, "estimate": self.estimate,
            "counted": self.counted, "failed": self.failed,
        }  # fmt: skip


class Measure(Protocol):
    """Collects and evaluates the evidence for one guardrail. `threshold` is the margin or bound."""

    threshold: float

    def take(self, view: WindowView) -> None: ...
    def miss(self, candidate: int, baseline: int, alone: int | None = None) -> None: ...
    def margin_for(self, share: float) -> float: ...
    def tasks(self) -> tuple[float, float]: ...
    def estimate(self, conditions: Conditions) -> float | None: ...
    def interval(self, conditions: Conditions) -> tuple[float, float] | None: ...
    def harm(self, conditions: Conditions) -> list[HarmPart]: ...
    def safe(self, margin: float, conditions: Conditions) -> float: ...
    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float: ...
    def note(self, margin: float, conditions: Conditions) -> str: ...
    def dump(self) -> dict[str, Any]: ...
    def load(self, data: Mapping[str, Any]) -> None: ...
    def load_older(self, by_stage: Mapping[int, Sequence[Any]]) -> None: ...
    def record(self) -> dict[str, Any]: ...


def guarded(name: str, weight: float, make: Callable[..., HarmPart], *given: Any) -> HarmPart:
    """Return the result of `make`, or an empty part if it raises, so that the other parts can still roll back."""
    try:
        return make(*given)
    except Exception as error:
        logger.exception("part %s could not be judged", name)
        return HarmPart(name, weight, 0.0, failed=type(error).__name__)


_USUAL = 0.25  # fraction of the margin: a typical difference between candidate and baseline


def kept_of(margin: float, squared_error: float) -> float:
    """Return the fraction (0 … 1) of an observed difference that is likely to persist: less for larger errors."""
    usual = (_USUAL * margin) ** 2
    return usual / (usual + squared_error)


def since(stage: int) -> str:
    """Return the name of the part that covers a stage and all later ones."""
    return f"since {stage}"


def slice_part(name: str) -> str:
    return f"slice {name}"


def slice_of(part: str) -> str | None:
    """Return the endpoint or route pair of a part, or None if it is not a slice."""
    return part.removeprefix("slice ") if part.startswith("slice ") else None


def stage_of(part: str) -> int | None:
    """Return the first stage that a part covers, or None if it covers the whole rollout."""
    return int(part.removeprefix("since ")) if part.startswith("since ") else None
