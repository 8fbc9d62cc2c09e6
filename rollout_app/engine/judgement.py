"""The result of one evaluation: verdicts, missing shares, and the overall evidence. Plain data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from rollout_app.engine.evidence import ClosedWindow
from rollout_app.engine.guarded import for_display
from rollout_app.engine.measures.base import Conditions, Measure
from rollout_app.engine.measures.outlook import Pace, needed_tasks
from rollout_app.engine.measures.shares import ShareVerdict, both_expected, expected
from rollout_app.engine.stats.combine import LOG_ROLL_BACK
from rollout_app.engine.values import replace, value
from rollout_app.engine.verdicts import Verdict, VerdictResult


@dataclass(slots=True)
class StageTally:
    """What was judged in one stage."""

    candidate_tasks: int = 0
    baseline_tasks: int = 0
    strata: int = 0  # windows
    first_minute: int | None = None
    last_minute: int | None = None
    candidate_graded: int = 0  # candidate tasks whose success is known
    candidate_expected: int = 0  # decided tasks, or finished ones if decisions are unknown
    baseline_expected: int = 0
    baseline_graded: int = 0
    # The same for the split: decided tasks only of windows in which both arms know theirs.
    candidate_split: int = 0
    baseline_split: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _TALLY_FIELDS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "StageTally":
        """Load a stored tally. Older ones lack decisions, the baseline's grades, and the split."""
        older = {
            "candidate_expected": data["candidate_tasks"],
            "baseline_expected": data["baseline_tasks"],
            "baseline_graded": data["baseline_tasks"],
            **data,
        }
        split = {f"{arm}_split": older[f"{arm}_expected"] for arm in ("candidate", "baseline")}
        return cls(**split | older)

    def add(self, window: ClosedWindow) -> None:
        candidate, baseline = window.candidate, window.baseline
        self.candidate_tasks += candidate.tasks
        self.baseline_tasks += baseline.tasks
        self.candidate_graded += candidate.graded
        self.baseline_graded += baseline.graded
        self.candidate_expected += expected(candidate)
        self.baseline_expected += expected(baseline)
        split = both_expected(window)
        self.candidate_split += split[0]
        self.baseline_split += split[1]
        self.strata += 1
        if self.first_minute is None or window.first_minute < self.first_minute:
            self.first_minute = window.first_minute
        if self.last_minute is None or window.last_minute > self.last_minute:
            self.last_minute = window.last_minute


def windows_of(
    tallies: Mapping[int, StageTally], stages: Sequence[int]
) -> tuple[tuple[int, int, int, int], ...]:
    """Return (stage, number of windows, first and last minute) of these stages."""
    return tuple(
        (stage, tally.strata, tally.first_minute or 0, tally.last_minute or 0)
        for stage, tally in sorted(tallies.items())
        if stage in stages
    )


_TALLY_FIELDS = tuple(field.name for field in fields(StageTally))


@value(frozen=True, slots=True)
class UnitsSeen:
    """How the units of a sticky workload affect the evidence."""

    left_out: tuple[int, ...] = ()  # hash cells that are not compared
    share_left_out: float = 0.0  # of the recent traffic
    deff: float = 1.0
    baseline_level: float | None = None  # the expected failure rate of the units that the baseline serves now

    def as_dict(self) -> dict[str, Any]:
        return {"left_out": list(self.left_out), "share_left_out": self.share_left_out, "deff": self.deff}


@value(frozen=True, slots=True)
class Judgement:
    """All guardrails at one evaluation. `log_e` is the rollout's evidence of harm; it rolls back at ln 20."""

    verdicts: tuple[Verdict, ...]
    log_e: float
    srm_log_e: float
    tallies: Mapping[int, StageTally]
    missing: tuple[ShareVerdict, ...] = ()
    differing_mismatch: ShareVerdict | None = None
    units: UnitsSeen | None = None  # None: the unit is the request
    # The furthest stage that the evidence allows if the plan lets stages be skipped; None: the next one.
    furthest: int | None = None
    unguarded: bool = False  # nothing watches failures, quality or cost
    broken: tuple[str, ...] = ()  # what could not be computed: it counts as nothing, and nothing advances

    @property
    def roll_back(self) -> bool:
        return self.log_e >= LOG_ROLL_BACK

    @property
    def harmful(self) -> tuple[Verdict, ...]:
        """The verdicts that count towards a rollback, strongest first."""
        counted = [v for v in self.verdicts if v.counted and v.log_e_counted > 0]
        return tuple(sorted(counted, key=lambda v: -(v.log_e_counted + math.log(v.weight))))

    @property
    def open(self) -> tuple[Verdict, ...]:
        """The verdicts that keep the rollout from advancing."""
        return tuple(v for v in self.verdicts if v.gates and v.result is not VerdictResult.PASS)

    @property
    def incomplete(self) -> tuple[ShareVerdict, ...]:
        """The shares that are shown to differ between the arms, largest difference first."""
        shown = (share for share in self.missing if share.shown)
        return tuple(sorted(shown, key=lambda share: -abs(share.difference)))

    def candidate_tasks(self, stage: int) -> int:
        return self.tallies[stage].candidate_tasks if stage in self.tallies else 0

    def as_dict(self) -> dict[str, Any]:
        """Serialise for the audit entry. No evidence at all (-inf) becomes null, because JSON has no infinity."""
        return {
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "log_e": None if math.isinf(self.log_e) else self.log_e,
            "srm_log_e": self.srm_log_e,
            "strata": {str(stage): tally.as_dict() for stage, tally in self.tallies.items()},
            "missing": [share.as_dict() for share in self.missing],
            "units": self.units.as_dict() if self.units else None,
        }


def forecast(
    verdicts: Iterable[Verdict],
    measures: Mapping[str, Measure],
    conditions: Conditions,
    pace: Pace,
    *,
    longest: bool,
) -> tuple[Verdict, ...]:
    """Return the verdicts, with the number of further tasks for those that are waited for.

    `longest`: compute only the longest forecast and use it for all.
    """
    told: list[Verdict] = []
    most = 0
    for verdict in verdicts:
        if verdict.waited_for:
            measure, least = measures[verdict.name], most * longest
            # A steady rate is compared with its bound alone, without the baseline.
            diluted = 1.0 if verdict.metric.spec.steady else pace.dilution
            make = partial(needed_tasks, measure, verdict.stage_margin, conditions, int(least / diluted))
            needed = for_display("the outlook", make, None)
            if needed is not None:
                needed = max(pace.least, least, math.ceil(needed * diluted))
                most = max(most, needed)
            verdict = replace(verdict, needed_tasks=needed)
        told.append(verdict)
    return tuple(told)
