"""The rollout's evidence, kept as sums: fed closed strata one by one, judged at any time, stored as JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from rollout_app.engine.evidence import (
    SHARE_ALL,
    ArmSums,
    ClosedWindow,
    Group,
    MinuteRow,
    MirrorSums,
    Rehearsed,
    ShadowSums,
    Stage,
)
from rollout_app.engine.guardrails import Guardrail, Verdict, detailed, judge
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.combine import LOG_ROLL_BACK, log_sum_exp
from rollout_app.engine.stats.deff import design_effect, unit_spread
from rollout_app.engine.stats.srm import log_e_srm
from rollout_app.engine.sufficient import Sums
from rollout_app.engine.windows import MAX_MINUTES, close_windows, merge_groups

FORMAT = 4
_RESTARTS = 3


@dataclass(slots=True)
class StageTally:
    """What was judged in one stage."""

    candidate_tasks: int = 0
    baseline_tasks: int = 0
    strata: int = 0
    first_minute: int | None = None
    last_minute: int | None = None
    candidate_graded: int = 0  # of the candidate's tasks, those whose success is known

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _TALLY_FIELDS}

    def add(self, stratum: ClosedWindow) -> None:
        self.candidate_tasks += stratum.candidate.tasks
        self.baseline_tasks += stratum.baseline.tasks
        self.candidate_graded += stratum.candidate.successes + stratum.candidate.failures
        self.strata += 1
        if self.first_minute is None or stratum.first_minute < self.first_minute:
            self.first_minute = stratum.first_minute
        if self.last_minute is None or stratum.last_minute > self.last_minute:
            self.last_minute = stratum.last_minute


_TALLY_FIELDS = tuple(field.name for field in fields(StageTally))


@dataclass(frozen=True, slots=True)
class Judgement:
    """All guardrails at one look. `log_e` is the rollout's evidence of harm: it rolls back at ln 20."""

    verdicts: tuple[Verdict, ...]
    log_e: float
    srm_log_e: float
    tallies: Mapping[int, StageTally]

    @property
    def roll_back(self) -> bool:
        return self.log_e >= LOG_ROLL_BACK

    @property
    def harmful(self) -> tuple[Verdict, ...]:
        """The verdicts that count towards a rollback, the strongest first."""
        counted = [v for v in self.verdicts if v.counted and v.log_e_harm > 0]
        return tuple(sorted(counted, key=lambda v: -(v.log_e_counted + math.log(v.weight))))

    @property
    def open(self) -> tuple[Verdict, ...]:
        """The verdicts that keep the rollout from advancing."""
        return tuple(v for v in self.verdicts if v.gates and v.result != "pass")

    def candidate_tasks(self, stage: int) -> int:
        return self.tallies[stage].candidate_tasks if stage in self.tallies else 0

    def as_dict(self) -> dict[str, Any]:
        """For the audit entry. No evidence at all (-inf) is null: JSON has no infinity."""
        return {
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "log_e": None if math.isinf(self.log_e) else self.log_e,
            "srm_log_e": self.srm_log_e,
            "strata": {str(stage): tally.as_dict() for stage, tally in self.tallies.items()},
        }


class Accumulator:
    """Sums per guardrail and stage. The same strata give the same sums in any order, in one go or many."""

    def __init__(
        self, guardrails: tuple[Guardrail, ...], stages: tuple[Stage, ...], reference: Reference
    ) -> None:
        self.guardrails = guardrails
        self.stages = stages
        self.reference = reference
        self.compared = [i for i, stage in enumerate(stages) if stage.mode == "percentage"]
        shares = {stage.share_pcm / SHARE_ALL for stage in stages if stage.mode == "percentage"}
        self.measures = {g.name: g.measure(reference, shares) for g in guardrails}
        self.sums: dict[str, dict[int, Sums]] = {g.name: {} for g in guardrails}
        self.tallies: dict[int, StageTally] = {}
        self.cursors: dict[int, int] = {}
        self.groups: dict[int, Group] = {}
        self.rehearsed = Rehearsed()  # of the shadow stage's closed minutes
        self.recent: list[list[int]] = []  # [minute, *HEALTH] of the baseline, over the last closed hour

    @classmethod
    def open(cls, guardrails: Iterable[Guardrail], stages: Iterable[Stage], reference: Reference) -> Self:
        """An empty ledger for one rollout."""
        return cls(tuple(guardrails), tuple(stages), reference)

    def take(self, rows: Sequence[MinuteRow], *, before: int) -> list[ClosedWindow]:
        """Form the strata that closed before minute `before`, add them, and return them."""
        cursors = self.cursors
        strata, self.cursors = close_windows(rows, before=before, cursors=cursors)
        for stratum in strata:
            self.add(stratum)
        for row in rows:
            if cursors.get(row.stage, row.minute) <= row.minute < self.cursors.get(row.stage, 0):
                self._note(row)
        if strata:
            since = max(stratum.last_minute for stratum in strata) - MAX_MINUTES
            self.recent = [noted for noted in self.recent if noted[0] > since]
        return strata

    def _note(self, row: MinuteRow) -> None:
        if row.rehearsed:
            self.rehearsed += row.rehearsed
        if row.baseline.tasks:
            self.recent.append([row.minute, *row.baseline.health])

    def baseline_since(self, minute: int) -> ArmSums:
        """The baseline's counts of the closed minutes from `minute` on, an hour at most; no costs, no tails."""
        counts = [noted[1:] for noted in self.recent if noted[0] >= minute]
        return ArmSums.from_health(map(sum, zip(*counts, strict=True))) if counts else ArmSums()

    def add(self, stratum: ClosedWindow) -> None:
        """Take in one closed stratum; cost and memory don't depend on how many came before."""
        stage = stratum.stage
        self.groups = merge_groups((self.groups, stratum.groups))
        self.tallies.setdefault(stage, StageTally()).add(stratum)
        if stage not in self.compared:
            return
        for name, measure in self.measures.items():
            sums = self.sums[name].setdefault(stage, measure.empty())
            measure.add(sums, stratum.candidate, stratum.baseline)

    def judge(self, stage: int, *, forecast: bool = True, detail: bool = True) -> Judgement:
        """The verdicts for an advance from `stage` (its index) to the one after it.

        `forecast` and `detail` are for people and for the record; no decision needs them.
        """
        share, deff = self._share_after(stage), self.deff
        for measure in self.measures.values():
            measure.deff = deff
        verdicts = tuple(
            judge(
                guardrail,
                self.measures[guardrail.name],
                self.sums[guardrail.name],
                restarts=self.compared[1 : 1 + _RESTARTS],
                next_share=share,
                gates=guardrail.applies(self.reference),
                forecast=forecast,
            )
            for guardrail in self.guardrails
        )
        log_e = log_sum_exp(math.log(v.weight) + v.log_e_counted for v in verdicts)
        judgement = Judgement(verdicts, log_e, self._srm(), dict(self.tallies))
        return self.detailed(judgement) if detail else judgement

    def detailed(self, judgement: Judgement) -> Judgement:
        """The judgement, just made, with each verdict's interval, its sums and which strata are in them."""
        strata = tuple(
            (stage, tally.strata, tally.first_minute or 0, tally.last_minute or 0)
            for stage, tally in sorted(self.tallies.items())
            if stage in self.compared
        )
        verdicts = (
            replace(detailed(verdict, self.measures[verdict.name], self.sums[verdict.name]), strata=strata)
            for verdict in judgement.verdicts
        )
        return replace(judgement, verdicts=tuple(verdicts))

    @property
    def deff(self) -> float:
        """The design effect: of the baseline before the rollout, or during it where that is greater.

        Units that send ten tasks a day look independent in an hour's reference; over days they are not.
        """
        seen = design_effect([(group.tasks, group.failures) for group in self.groups.values()])
        return max(self.reference.deff, seen)

    def _share_after(self, stage: int) -> float:
        following = self.stages[stage + 1] if stage + 1 < len(self.stages) else None
        return following.share_pcm / SHARE_ALL if following and following.mode == "percentage" else 1.0

    def _srm(self) -> float:
        tallies = ((i, self.tallies[i]) for i in self.compared if i in self.tallies)
        segments = (
            (self.stages[i].share_pcm / SHARE_ALL, t.candidate_tasks, t.baseline_tasks) for i, t in tallies
        )
        # As with the design effect: units that come and go look alone in a short reference.
        seen = unit_spread([group.tasks for group in self.groups.values()])
        return log_e_srm(segments, max(self.reference.unit_spread, seen))

    def as_dict(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "guardrails": [guardrail.as_dict() for guardrail in self.guardrails],
            "stages": [stage.as_dict() for stage in self.stages],
            "reference": self.reference.as_dict(),
            "sums": {
                name: {str(stage): sums.dump() for stage, sums in by_stage.items()}
                for name, by_stage in self.sums.items()
            },
            "tallies": {str(stage): tally.as_dict() for stage, tally in self.tallies.items()},
            "cursors": {str(stage): minute for stage, minute in self.cursors.items()},
            "recent": self.recent,
            "rehearsed": [self.rehearsed.shadow.counts, self.rehearsed.mirror.counts],
            "groups": {str(key): [group.tasks, group.failures] for key, group in self.groups.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises ValueError for sums of another format: open a new ledger and feed it the strata again."""
        if data.get("format") != FORMAT:
            raise ValueError(f"the evidence has format {data.get('format')!r}, this engine reads {FORMAT}")
        ledger = cls(
            tuple(Guardrail.from_dict(item) for item in data["guardrails"]),
            tuple(Stage.from_dict(item) for item in data["stages"]),
            Reference.from_dict(data["reference"]),
        )
        for name, by_stage in data["sums"].items():
            measure = ledger.measures[name]
            ledger.sums[name] = {int(stage): measure.load(sums) for stage, sums in by_stage.items()}
        ledger.tallies = {int(stage): StageTally(**tally) for stage, tally in data["tallies"].items()}
        ledger.cursors = {int(stage): minute for stage, minute in data["cursors"].items()}
        ledger.recent = data["recent"]
        shadow, mirror = data["rehearsed"]
        ledger.rehearsed = Rehearsed(ShadowSums(*shadow), MirrorSums(*mirror))
        ledger.groups = {int(key): Group(*counts) for key, counts in data["groups"].items()}
        return ledger
