"""The rollout's evidence as running sums: add closed windows one by one, judge at any time, store as JSON."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Self, TypeVar

from rollout_app.engine.evidence import (
    SHARE_ALL,
    ArmSums,
    ClosedWindow,
    Group,
    Late,
    MinuteRow,
    MirrorSums,
    Rehearsed,
    ShadowSums,
    Stage,
)
from rollout_app.engine.guarded import Failures, for_display, or_failed
from rollout_app.engine.guardrails import Guardrail
from rollout_app.engine.judgement import Judgement, StageTally, UnitsSeen, forecast, windows_of
from rollout_app.engine.measures.base import DEFAULT, RESTARTS, Conditions, Measure, Tuning
from rollout_app.engine.measures.outlook import Pace, pace_of
from rollout_app.engine.measures.rates import RateDifference
from rollout_app.engine.measures.shares import Shares
from rollout_app.engine.measures.slices import FollowedSlices
from rollout_app.engine.measures.units import Units
from rollout_app.engine.measures.views import compared_view, lone_view
from rollout_app.engine.metrics import Metric
from rollout_app.engine.reference import Reference
from rollout_app.engine.stats.combine import LOG_AMBER, LOG_SAFE, LOG_SUSPICION, weighted
from rollout_app.engine.stats.deff import design_effect, unit_spread
from rollout_app.engine.stats.srm import log_e_srm
from rollout_app.engine.values import replace
from rollout_app.engine.verdicts import (
    Verdict,
    VerdictResult,
    beside_the_point,
    detailed,
    judge,
    not_judged,
    with_named_slices,
)
from rollout_app.engine.windows import MAX_MINUTES, close_windows, merge_groups

T = TypeVar("T")
FORMAT = 5
READABLE = (4, 5)  # 4: sums by stage, without shares, slices, differing tasks and cells
_SHARES = "missing shares"
_ALL_DIFFER = 0.95  # if at least this share of tasks differs, all tasks count as differing


class Accumulator:
    """Statistics per guardrail. The same windows in order give the same result, in one call or in many."""

    def __init__(
        self,
        guardrails: tuple[Guardrail, ...],
        stages: tuple[Stage, ...],
        reference: Reference,
        tuning: Tuning = DEFAULT,
    ) -> None:
        self.guardrails = guardrails
        self.stages = stages
        self.reference = reference
        self.tuning = tuning
        self.compared = [i for i, stage in enumerate(stages) if stage.mode == "percentage"]
        # A plan of a full stage alone without a minimum time (a revert) ends at once: nothing is judged in it.
        self.alone = [
            i for i, stage in enumerate(stages) if stage.mode == "full" and (i or stage.min_minutes)
        ]
        shares = {stage.harm_share for stage in stages}
        self.measures = {g.name: g.measure(reference, shares, self._restarts(g), tuning) for g in guardrails}
        self.why_not = {g.name: g.why_not(reference) for g in guardrails}
        self.tallies: dict[int, StageTally] = {}
        self.cursors: dict[int, int] = {}
        self.groups: dict[int, Group] = {}
        self.units = Units.begin(reference) if reference.sticky else None
        self.shares = Shares()
        self.followed = FollowedSlices()
        self.rehearsed = Rehearsed()  # of the shadow stage's closed minutes
        self.recent: list[list[int]] = []  # [minute, *HEALTH] of the baseline over the last closed hour
        # By guardrail or part. If there are any, the sums can be judged but must not be stored.
        self.failed = Failures()

    def _restarts(self, guardrail: Guardrail) -> list[int]:
        """Return the later stages from which harm also counts separately. A bound needs no baseline, so it is judged in
        the full stage too.
        """
        if guardrail.bound is None or not self.compared:
            return self.compared[1 : 1 + RESTARTS]
        return (self.compared[1 : 1 + RESTARTS - len(self.alone)] + self.alone)[:RESTARTS]

    @classmethod
    def open(
        cls,
        guardrails: Iterable[Guardrail],
        stages: Iterable[Stage],
        reference: Reference,
        tuning: Tuning = DEFAULT,
    ) -> Self:
        """Return an empty accumulator for one rollout."""
        return cls(tuple(guardrails), tuple(stages), reference, tuning)

    # --- taking in -------------------------------------------------------------------------------------

    def take(
        self, rows: Sequence[MinuteRow], *, before: int, late: Mapping[int, Late] | None = None
    ) -> list[ClosedWindow]:
        """Form the windows that closed before minute `before`, add them, and return them.

        `late`: by stage, what arrived after its window closed, counted from the rollout's start.
        """
        cursors = self.cursors
        windows, self.cursors = close_windows(rows, before=before, cursors=cursors)
        for window in windows:
            self.add(window)
        for row in rows:
            if cursors.get(row.stage, row.minute) <= row.minute < self.cursors.get(row.stage, 0):
                self._note(row)
        if windows:
            since = max(window.last_minute for window in windows) - MAX_MINUTES
            self.recent = [noted for noted in self.recent if noted[0] > since]
        if late:
            self.take_late(late)
        return windows

    def _note(self, row: MinuteRow) -> None:
        if row.rehearsed:
            self.rehearsed += row.rehearsed
        if row.baseline.tasks:
            self.recent.append([row.minute, *row.baseline.health])

    def baseline_since(self, minute: int) -> ArmSums:
        """Return the baseline's counts of closed minutes from `minute` on, at most an hour; no costs or tails."""
        counts = [noted[1:] for noted in self.recent if noted[0] >= minute]
        return ArmSums.from_health(map(sum, zip(*counts, strict=True))) if counts else ArmSums()

    def add(self, window: ClosedWindow) -> None:
        """Add one closed window. Time and memory do not depend on how many came before."""
        stage = window.stage
        if window.groups:
            self.groups = merge_groups((self.groups, window.groups))
        self.tallies.setdefault(stage, StageTally()).add(window)
        guard, measures = self.failed.guard, self.measures
        if stage in self.compared:
            guard(_SHARES, partial(self.shares.take, window), None)
            followed = self.followed if self.tuning.slices else None
            view = compared_view(window, self.units, followed, self.failed)
        elif stage in self.alone:
            measures = self._bounds
            view = lone_view(window, self.units)
        else:
            return
        for name, measure in measures.items():
            guard(name, partial(measure.take, view), None)

    @property
    def _bounds(self) -> dict[str, Measure]:
        return {g.name: self.measures[g.name] for g in self.guardrails if g.bound is not None}

    def take_late(self, late: Mapping[int, Late]) -> bool:
        """Add what arrived late so far, by stage. Return whether anything was new.

        Late tasks count as missing. Where decisions are counted, they were counted as missing already.
        """
        compared = self.shares.take_late({at: more for at, more in late.items() if at in self.compared})
        alone = [(at, self.shares.take_late({at: late[at]}, alone=True)) for at in self.alone if at in late]
        if not self._decisions_are_known:
            for more in compared:
                for name, measure in self.measures.items():
                    self.failed.guard(name, partial(measure.miss, more.candidate, more.baseline), None)
            for at, news in alone:
                for more in news:
                    for name, measure in self._bounds.items():
                        self.failed.guard(name, partial(measure.miss, more.candidate, 0, at), None)
        return bool(compared) or any(news for _, news in alone)

    @property
    def _decisions_are_known(self) -> bool:
        return "unfinished" in self.shares.kinds

    # --- judging ---------------------------------------------------------------------------------------

    def judge(self, stage: int, *, forecast: bool = True, detail: bool = True) -> Judgement:
        """Return the verdicts for an advance from `stage` (its index) to the next one.

        `forecast` and `detail` are for display and the record; no decision needs them. A guardrail that raises counts
        as no evidence and is named in `broken`; the others are still judged.
        """
        conditions = self.conditions()
        share = self._share_after(stage)
        verdicts = beside_the_point([self._verdict(one, conditions, share) for one in self.guardrails])
        log_e = weighted((v.weight, v.log_e_counted) for v in verdicts)
        broken = [f"{what} ({error})" for what, error in self.failed.items() if what not in self.measures]
        broken += [what for verdict in verdicts for what in verdict.broken]

        def none_if_broken(what: str, make: Callable[[], T], instead: T) -> T:
            """Return `instead` if `make` fails: what can only hold a rollout must not stop harm from being counted."""

            def note(error: str) -> T:
                broken.append(f"{what} ({error})")
                return instead

            return or_failed(what, make, note)

        deff, furthest = conditions.deff, partial(self._furthest, stage, verdicts, conditions)
        judgement = Judgement(
            tuple(verdicts) if log_e < LOG_AMBER else tuple(map(_with_slices, verdicts)),
            log_e,
            none_if_broken("the sample ratio", self._srm, 0.0),
            dict(self.tallies),
            none_if_broken(_SHARES, lambda: self.shares.verdicts(deff), ()),
            none_if_broken("differing shares", lambda: self.shares.differing_mismatch(deff), None),
            none_if_broken("units", lambda: self._units_seen(deff), None),
            none_if_broken("the next stage", lambda: None if log_e >= LOG_SUSPICION else furthest(), None),
            not any(one.metric.spec.graded and not self.why_not[one.name] for one in self.guardrails),
            tuple(broken),
        )
        if forecast:
            judgement = self.forecast(judgement, stage)
        return self.detailed(judgement) if detail else judgement

    def _verdict(self, guardrail: Guardrail, conditions: Conditions, share: float) -> Verdict:
        measure, why_not = self.measures[guardrail.name], self.why_not[guardrail.name]
        if error := self._failed(guardrail):
            return not_judged(guardrail, measure, error)
        return or_failed(
            guardrail.name,
            lambda: judge(guardrail, measure, conditions, next_share=share, why_not=why_not),
            lambda error: not_judged(guardrail, measure, error),
        )

    def _failed(self, guardrail: Guardrail) -> str:
        """Return the error that prevents judging, if any. For sticky units, costs depend on the failure measure."""
        rests_on = Metric.FAILURE if guardrail.metric.spec.priced and self.units else guardrail.name
        return self.failed.get(guardrail.name) or self.failed.get(rests_on, "")

    def conditions(self) -> Conditions:
        """Return the conditions under which all guardrails are judged now."""
        deff = self.deff
        alike = self.units is None or not self.units.vary
        return Conditions(
            tuning=self.tuning,
            deff=deff,
            differing=self._differing(deff) if alike and self.tuning.differing else None,
            slices=alike and bool(self.tuning.slices),
            sticky=self.units is not None,
            success_shift=self._success_shift(),
        )

    def _success_shift(self) -> dict[str, float]:
        failure = self.measures.get(Metric.FAILURE)
        return failure.success_shift() if isinstance(failure, RateDifference) else {}

    def _differing(self, deff: float) -> float | None:
        """Return the upper bound of the share of differing tasks, or None if they are not judged separately."""
        known = self.shares.differing
        if known is None or self.shares.differing_mismatch(deff) is not None:
            return None
        share, n = known
        if share >= _ALL_DIFFER:
            return None
        return min(1.0, share + 2 * math.sqrt(deff * max(share * (1 - share), 1 / n) / n))

    def _furthest(self, stage: int, verdicts: Sequence[Verdict], conditions: Conditions) -> int | None:
        """Return the furthest stage that the evidence allows, if the plan's stages may be skipped."""
        gating = [v for v in verdicts if v.gates]
        if stage + 1 >= len(self.stages) or any(v.result is not VerdictResult.PASS for v in gating):
            return None
        furthest = stage + 1
        while furthest + 1 < len(self.stages) and self.stages[furthest].skippable:
            share = self._share_after(furthest)
            for verdict in gating:
                measure = self.measures[verdict.name]
                if measure.safe(measure.margin_for(share), conditions) < LOG_SAFE:
                    return furthest
            furthest += 1
        return furthest

    def forecast(self, judgement: Judgement, stage: int, *, longest: bool = False) -> Judgement:
        """Add to a fresh judgement of `stage` how many more tasks each verdict needs.

        `longest`: compute only the longest forecast and use it for all.
        """
        pace = for_display("the pace", partial(self._pace, stage), Pace())
        verdicts = forecast(judgement.verdicts, self.measures, self.conditions(), pace, longest=longest)
        return replace(judgement, verdicts=verdicts)

    def _pace(self, stage: int) -> Pace:
        arms = [
            (t.candidate_tasks, t.baseline_tasks) for at, t in self.tallies.items() if at in self.compared
        ]
        now = self.tallies.get(stage, StageTally())
        return pace_of(
            arms, self.stages[stage].share_pcm / SHARE_ALL, now.candidate_tasks / max(1, now.strata)
        )

    def detailed(self, judgement: Judgement) -> Judgement:
        """Add to a fresh judgement each verdict's interval, sums and windows."""

        compared = windows_of(self.tallies, self.compared)
        alone_too = windows_of(self.tallies, [*self.compared, *self.alone])
        conditions, bounds = self.conditions(), self._bounds

        def with_details(verdict: Verdict) -> Verdict:
            measure = self.measures[verdict.name]
            what = f"the details of {verdict.name}"
            named = verdict if verdict.slices else _with_slices(verdict)
            windows = alone_too if verdict.name in bounds else compared
            return for_display(what, lambda: detailed(named, measure, conditions, windows), named)

        return replace(judgement, verdicts=tuple(map(with_details, judgement.verdicts)))

    @property
    def deff(self) -> float:
        """The design effect of the baseline before or during the rollout, whichever is greater.

        Units that send ten tasks a day look independent in a reference of one hour, but not over days. Where cells
        are reported, units with a similar past are compared, and only the remaining variation divides the evidence.
        """
        if self.units and self.units.reported:
            return self.units.design_effect
        seen = design_effect([(group.tasks, group.failures) for group in self.groups.values()])
        return max(self.reference.deff, seen)

    def _units_seen(self, deff: float) -> UnitsSeen | None:
        if self.units is None:
            return None
        return UnitsSeen(
            tuple(sorted(self.units.left_out)), self.units.share_left_out(), deff, self.units.baseline_level
        )

    def _share_after(self, stage: int) -> float:
        return self.stages[stage + 1].harm_share if stage + 1 < len(self.stages) else 1.0

    def _srm(self) -> float:
        """Return the evidence on the split of decisions where they are counted: lost tasks are not a wrong split."""
        segments = (
            (self.stages[i].share_pcm / SHARE_ALL, tally.candidate_split, tally.baseline_split)
            for i, tally in self.tallies.items()
            if i in self.compared
        )
        # As with the design effect: intermittent units look independent in a short reference.
        seen = max(self.reference.unit_spread, unit_spread([group.tasks for group in self.groups.values()]))
        return log_e_srm(segments, max(seen, self.units.spread) if self.units else seen)

    # --- kept ------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        seen = self.rehearsed
        data = {
            "format": FORMAT,
            "guardrails": [guardrail.as_dict() for guardrail in self.guardrails],
            "stages": [stage.as_dict() for stage in self.stages],
            "reference": self.reference.as_dict(),
            "sums": {name: measure.dump() for name, measure in self.measures.items()},
            "tallies": {str(stage): tally.as_dict() for stage, tally in self.tallies.items()},
            "cursors": {str(stage): minute for stage, minute in self.cursors.items()},
            "recent": self.recent,
            "rehearsed": [seen.shadow.counts, seen.mirror.counts, seen.shadow.priced],
            "groups": {str(key): [group.tasks, group.failures] for key, group in self.groups.items()},
            "shares": self.shares.dump(),
            "followed": self.followed.dump(),
        }
        return data | ({"units": self.units.dump()} if self.units else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], tuning: Tuning = DEFAULT) -> Self:
        """Load stored sums. Raises ValueError for another format: then open a new one and add the windows again."""
        if data.get("format") not in READABLE:
            raise ValueError(f"the evidence has format {data.get('format')!r}, this engine reads {FORMAT}")
        kept = cls(
            tuple(Guardrail.from_dict(item) for item in data["guardrails"]),
            tuple(Stage.from_dict(item) for item in data["stages"]),
            Reference.from_dict(data["reference"]),
            tuning,
        )
        for name, sums in data["sums"].items():
            if data["format"] == FORMAT:
                kept.measures[name].load(sums)
            else:
                kept.measures[name].load_older({int(stage): part for stage, part in sums.items()})
        kept.tallies = {int(stage): StageTally.from_dict(tally) for stage, tally in data["tallies"].items()}
        kept.cursors, kept.recent = {int(stage): at for stage, at in data["cursors"].items()}, data["recent"]
        shadow, mirror, *priced = data["rehearsed"]
        kept.rehearsed = Rehearsed(ShadowSums(*shadow, *(priced[0] if priced else ())), MirrorSums(*mirror))
        kept.groups = {int(key): Group(*counts) for key, counts in data["groups"].items()}
        kept.shares = Shares.load(data.get("shares", {}))
        kept.followed = FollowedSlices.load(data.get("followed", ((), ())))
        if kept.units and "units" in data:
            kept.units = Units.load(kept.reference, data["units"])
        return kept


def _with_slices(verdict: Verdict) -> Verdict:
    return for_display("which slices are hurt", lambda: with_named_slices(verdict), verdict)
