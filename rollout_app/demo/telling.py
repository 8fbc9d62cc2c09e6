"""The demo's output: a line when something happens, figures in between, a table at the end."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

from django.core.management.base import OutputWrapper
from django.db.models import Sum
from django.urls import reverse

from controlplane.web.display import money, percent
from rollout_app.demo.traffic import Traffic, waits_for_a_person
from rollout_app.engine.evidence import Stage
from rollout_app.engine.shadow import shadow_report
from rollout_app.engine.states import ENDED, State, words
from rollout_app.models import ArmTotals, Rollout
from rollout_app.outcomes import minute_totals
from rollout_app.review.rollouts import diagnose_rollout

EVERY_S = 15.0  # seconds between lines of figures if the output is not a terminal


@dataclass(frozen=True, slots=True)
class Figures:
    """One version's tasks over its whole time."""

    tasks: int = 0
    success: float | None = None
    cost_per_success: float | None = None  # nUSD, all attempts


class Teller:
    """Writes to `out` and remembers its last lines, so that each is written once."""

    def __init__(self, out: OutputWrapper, url: str, stories: Sequence[Traffic]) -> None:
        self.out, self.url, self.stories = out, url, stories
        self.began = time.monotonic()
        self.ended: dict[str, float] = {}  # seconds until the story ended or waited for a person
        self._said: dict[str, str] = {}
        self._introduced: set[str] = set()
        self._figures_at = 0.0
        self._live = out.isatty()

    def look(self) -> None:
        """Write what is new, then the line of figures."""
        shares = []
        for traffic in self.stories:
            rollout = traffic.rollout()
            news = _news(rollout)
            letter = traffic.story.letter
            if self._said.get(letter) != news:
                self._said[letter] = news
                self._line(f"({letter}) {traffic.story.workload}: {news}")
            if rollout is not None:
                self._introduce(letter, rollout)
                self._keep_the_end(letter, rollout)
            shares.append(f"({letter}) {_short(rollout)}")
        self._progress(" · ".join(shares))

    def _introduce(self, letter: str, rollout: Rollout) -> None:
        if letter not in self._introduced:
            self._introduced.add(letter)
            self._line(f"    watch it at {self.page(rollout)}")

    def _keep_the_end(self, letter: str, rollout: Rollout) -> None:
        """Record when the story ended or began to wait for a person; a wait that is over does not count."""
        if rollout.state in ENDED or waits_for_a_person(rollout):
            self.ended.setdefault(letter, time.monotonic() - self.began)
        else:
            self.ended.pop(letter, None)

    def page(self, rollout: Rollout) -> str:
        return self.url + reverse("console:rollout", args=[rollout.pk])

    def _progress(self, text: str) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self.out.write(f"\r\x1b[2K{self._clock()} {text}"[: width + 5], ending="")
            self.out.flush()
        elif time.monotonic() - self._figures_at >= EVERY_S:
            self._figures_at = time.monotonic()
            self._line(text)

    def _line(self, text: str) -> None:
        self.out.write(f"\r\x1b[2K{self._clock()} {text}" if self._live else f"{self._clock()} {text}")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.began)
        return f"[{seconds // 60}:{seconds % 60:02}]"

    def summary(self) -> None:
        """Write how each story ended, next to its baseline."""
        for traffic in self.stories:
            story, rollout = traffic.story, traffic.rollout()
            if rollout is None:
                continue
            when = self.ended.get(story.letter)
            self.out.write(f"\n({story.letter}) {story.title}: {story.expected}.")
            self.out.write(f"    {_ending(rollout)}{f' (after {when:.0f} s)' if when else ''}")
            before, after = (
                figures(rollout, rollout.baseline.number),
                figures(rollout, rollout.candidate.number),
            )
            self.out.write(f"    before: {_written(before)}")
            if after.tasks:
                self.out.write(f"    after:  {_written(after)}{_compared(before, after)}")
                self.out.write(f"    {_diagnosis(rollout)}")
            if mirrored := _mirrored(rollout):
                self.out.write(f"    {mirrored}")
            self.out.write(f"    {self.page(rollout)}")


def figures(rollout: Rollout, version: int) -> Figures:
    sums = ArmTotals.objects.filter(
        environment=rollout.environment_id, workload=rollout.workload_id, version=version
    ).aggregate(*(Sum(name) for name in ("tasks", "successes", "failures", "cost_sum")))
    tasks, successes, failures, cost = (value or 0 for value in sums.values())
    if not successes:
        return Figures(tasks, 0.0 if failures else None)
    return Figures(tasks, successes / (successes + failures), cost / successes)


def _news(rollout: Rollout | None) -> str:
    """Return the rollout's state in words; a new line is written when it changes: a move, or a new reason to hold."""
    if rollout is None:
        return "only the baseline serves, until enough is known about it"
    latest = rollout.transitions.last()
    state = State(rollout.state)
    if state is State.RUNNING:
        stage = _stage(rollout)
        if waits_for_a_person(rollout):
            return f"{stage}, waiting for a person: {rollout.hold_sentence}"
        return f"{stage}. {latest.reason}" if latest else stage
    name = words(state)
    return f"{name}. {latest.reason}" if latest else name


def _short(rollout: Rollout | None) -> str:
    if rollout is None:
        return "calibrating"
    if rollout.state != State.RUNNING:
        return words(rollout.state)
    tasks = figures(rollout, rollout.candidate.number).tasks
    said = f"{_stage(rollout)}, {tasks:,} on the candidate" if tasks else _stage(rollout)
    return f"{said}, holds: {rollout.hold_code}" if rollout.hold_code else said


def _stage(rollout: Rollout) -> str:
    return Stage.from_dict(rollout.stages[rollout.stage]).label


def _ending(rollout: Rollout) -> str:
    if rollout.state == State.RUNNING:
        return f"It is at {_stage(rollout)}: {rollout.hold_sentence or 'under way.'}"
    latest = rollout.transitions.last()
    reason = rollout.rollback_reason or (latest.reason if latest else "")
    return f"It is {words(rollout.state)}: {reason}"


def _written(seen: Figures) -> str:
    return (
        f"{seen.tasks:,} tasks, {percent(seen.success)} succeed, {money(seen.cost_per_success)} per success"
    )


def _compared(before: Figures, after: Figures) -> str:
    if before.cost_per_success is None or after.cost_per_success is None:
        return ""
    points = 100 * ((after.success or 0) - (before.success or 0))
    change = after.cost_per_success / before.cost_per_success - 1
    return f"  ({points:+.1f} points, cost per success {change:+.1%})"


def _diagnosis(rollout: Rollout) -> str:
    """Return the product's diagnosis of the candidate, over the stages in which both arms served."""
    said = diagnose_rollout(rollout)
    return f"{said.code.replace('_', ' ').capitalize()}: {said.sentence}"


def _mirrored(rollout: Rollout) -> str:
    shadow, mirror = minute_totals.shadow_and_mirror(rollout)
    if not mirror.n:
        return ""
    report = shadow_report(shadow, mirror)
    one, other = mirror.both + mirror.only_baseline, mirror.both + mirror.only_candidate
    saved = mirror.candidate_cost_nusd / mirror.baseline_cost_nusd - 1 if mirror.baseline_cost_nusd else 0.0
    return (
        f"shadow: {report.decisions:,} decisions, {mirror.n:,} of them run on both: "
        f"{percent(one / mirror.n)} succeed on the baseline, {percent(other / mirror.n)} on the candidate, which costs "
        f"{saved:+.1%}."
    )
