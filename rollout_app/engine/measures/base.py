"""What the measures share: what they take in, under which conditions they are asked, and what they answer."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rollout_app.engine.evidence import ClosedWindow, SliceSums
from rollout_app.engine.measures.sufficient import Counts

logger = logging.getLogger(__name__)
ALL, DIFFERING, EXACT, SHIFT = "all", "differing", "exact", "shift"  # parts; others: "since 3", "slice /x"
CERTAIN = math.log(1_000)  # ln E of what needs no evidence, as a share of traffic that is below the margin


@dataclass(frozen=True, slots=True)
class Tuning:
    """How a guardrail's evidence is divided. The weights of its parts add up to 1, so it stays an e-process.

    The defaults are what simulation found to need the fewest tasks (docs/statistics.md).
    """

    restart: float = 0.05  # each of three: harm since a later stage
    slices: float = 0.10  # of what is left: the mean over endpoints and route pairs
    differing: float = 0.5  # of the rest: the tasks that the two policies treat differently
    exact_cost: float = 0.5  # of cost per success: the shares of costs above calibrated quantiles
    shift: float = 0.05  # of failures of sticky units: far more than units can differ
    least_cost_tasks: int = 50  # per arm, of known cost and grade, before costs are evidence


DEFAULT = Tuning()
# One part, one test: the formulas as the shared vectors have them.
PLAIN = Tuning(0.0, 0.0, 0.0, 0.0, 0.0, least_cost_tasks=100)
RESTARTS = 3


@dataclass(frozen=True, slots=True)
class WindowView:
    """One closed window as the measures take it in."""

    window: ClosedWindow
    failures: Sequence[Counts]  # graded tasks and failures, one entry per class of alike units
    no_grade: Counts  # missing a grade, of how many tasks: candidate's, baseline's
    no_cost: Counts  # missing a cost or a grade
    differing: tuple[SliceSums, SliceSums] | None = None  # candidate's, baseline's; None: not known
    slices: Mapping[str, tuple[SliceSums, SliceSums]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a guardrail is judged under at one evaluation.

    `differing`: the share of tasks that the policies would treat differently, as the upper end of what it may be; None
    where it is not known, or all differ, or the arms disagree on it: then all tasks stand in.
    """

    tuning: Tuning = DEFAULT
    deff: float = 1.0
    differing: float | None = None
    slices: bool = False
    sticky: bool = False
    # By part: what to add to ln of cost per success because the arms' units would fail differently anyway.
    success_shift: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HarmPart:
    """One part of a guardrail's evidence of harm. `estimate`: of all tasks, in the best case of what is missing."""

    name: str
    weight: float
    log_e: float
    estimate: float | None = None
    counted: bool = False  # its own estimate reaches the margin
    failed: str = ""  # the error's name, where it could not be computed: then it counts nothing, and holds

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "weight": self.weight, "log_e": self.log_e, "estimate": self.estimate,
            "counted": self.counted, "failed": self.failed,
        }  # fmt: skip


class Measure(Protocol):
    """A guardrail's evidence. `threshold`: its margin or bound."""

    threshold: float

    def take(self, view: WindowView) -> None: ...
    def miss(self, candidate: int, baseline: int) -> None: ...
    def margin_for(self, share: float) -> float: ...
    def tasks(self) -> tuple[float, float]: ...
    def estimate(self, conditions: Conditions) -> float | None: ...
    def interval(self, conditions: Conditions) -> tuple[float, float] | None: ...
    def harm(self, conditions: Conditions) -> list[HarmPart]: ...
    def safe(self, margin: float, conditions: Conditions) -> float: ...
    def safe_after(self, stretch: float, margin: float, conditions: Conditions) -> float: ...
    def note(self) -> str: ...
    def dump(self) -> dict[str, Any]: ...
    def load(self, data: Mapping[str, Any]) -> None: ...
    def load_older(self, by_stage: Mapping[int, Sequence[Any]]) -> None: ...
    def record(self) -> dict[str, Any]: ...


def guarded(name: str, weight: float, make: Callable[..., HarmPart], *given: Any) -> HarmPart:
    """What `make` gives, or a part that counts nothing where it can't be computed: the others still roll back."""
    try:
        return make(*given)
    except Exception as error:
        logger.exception("part %s could not be judged", name)
        return HarmPart(name, weight, 0.0, failed=type(error).__name__)


_USUAL = 0.25  # of the margin: a difference that a candidate is about as likely to make as not


def kept_of(margin: float, squared_error: float) -> float:
    """How much of a difference seen so far is likely to stay: shrunk to none by its standard error."""
    usual = (_USUAL * margin) ** 2
    return usual / (usual + squared_error)


def since(stage: int) -> str:
    """The name of the part that counts from a stage on."""
    return f"since {stage}"


def slice_part(name: str) -> str:
    return f"slice {name}"


def slice_of(part: str) -> str | None:
    """The endpoint or route pair that a part counts; None for another part."""
    return part.removeprefix("slice ") if part.startswith("slice ") else None


def stage_of(part: str) -> int | None:
    """The stage from which a part counts; None: from the start."""
    return int(part.removeprefix("since ")) if part.startswith("since ") else None
