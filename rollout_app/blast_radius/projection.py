"""Project what tasks would cost on other models and which models they would ask, as bounds. Pure.

Known for a task are its cost and the models that it asked. On another model it is assumed to use the same tokens, so
its first call costs more or less in proportion to the prices. Input and output tokens are not reported separately, so
the two price ratios (input and output) are the bounds. Whether a task would then be escalated is unknown before it is
tried: the bounds assume none and all, and `expected` uses the present share of escalations under the same second
stage, if one is served.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rollout_app.engine.diagnosis import OutcomeSums

LEAST_SEEN = 100  # tasks needed before their share of escalations is used for others

Prices = Mapping[str, tuple[int, int]]  # catalogue model: nano-USD per million input and output tokens


class Bounds(NamedTuple):
    """A range; `expected` is None if nothing indicates a value within it."""

    low: float
    high: float
    expected: float | None

    def __add__(self, other: "Bounds") -> "Bounds":  # type: ignore[override]  # adds up element by element
        both = None if self.expected is None or other.expected is None else self.expected + other.expected
        return Bounds(self.low + other.low, self.high + other.high, both)

    def times(self, factor: float) -> "Bounds":
        """Multiply by `factor`, which must not be negative."""
        expected = None if self.expected is None else self.expected * factor
        return Bounds(self.low * factor, self.high * factor, expected)


ZERO = Bounds(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PolicyShape:
    """The facts about a policy that a projection needs: its models by catalogue name, and its second stage.

    `second` compares equal if two policies continue in the same way after an attempt.
    """

    models: Mapping[str, str]
    params: Mapping[str, Any]
    escalates_to: str | None  # a catalogue name
    second: Any

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "PolicyShape":
        models = {alias: entry["model"] for alias, entry in document["models"].items()}
        params = {alias: entry.get("params") or {} for alias, entry in document["models"].items()}
        escalate = document.get("escalate") or {}
        to = models.get(escalate.get("to", "")) if escalate.get("max", 1) else None
        second = (
            {**escalate, "to": to} if to else {},
            [models.get(alias) for alias in document.get("fallback", ())],
            *(document.get(name) or {} for name in ("retry", "budget", "timeouts")),
        )
        return cls(models, params, to, second)


@dataclass(frozen=True, slots=True)
class Cell:
    """The tasks of one endpoint that one rule sends to one model now.

    `whole`: all of them. `alone`: those that this model answered without an escalation.
    """

    endpoint: str
    rule: str
    model: str  # a catalogue name
    params: Mapping[str, Any]
    whole: OutcomeSums
    alone: OutcomeSums


@dataclass(frozen=True, slots=True)
class Flow:
    """Tasks of a cell with the candidate's aliases of the models they may go to. With one option it is certain."""

    cell: Cell
    options: tuple[str, ...]
    tasks: float


class Seen(NamedTuple):
    """Tasks that began on a model under the same second stage, and how many of them were escalated."""

    tasks: int
    escalated: int


@dataclass(frozen=True, slots=True)
class Projection:
    """The projected effect. `change`: of the cost of covered tasks in nano-USD. `covered`, `tasks`: counts.

    moves            (from, to) → minimum and maximum of tasks whose first model changes like this
    moved            minimum and maximum of tasks whose first model changes
    asked            model → tasks that ask it at some stage
    reparametrised   tasks that keep their model but get other parameters
    second_stage     tasks that would continue differently after the same first answer
    """

    tasks: float = 0
    covered: float = 0
    cost: float = 0
    change: Bounds = ZERO
    moves: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    asked: Mapping[str, Bounds] = field(default_factory=dict)
    moved: tuple[float, float] = (0, 0)
    reparametrised: float = 0
    second_stage: float = 0


@dataclass(frozen=True, slots=True)
class Projector:
    """Projects flows from a baseline to a candidate. `seen` is keyed by (endpoint, model) and by (None, model)."""

    baseline: PolicyShape
    candidate: PolicyShape
    prices: Prices
    seen: Mapping[tuple[str | None, str], Seen] = field(default_factory=dict)

    def project(self, flows: Iterable[Flow]) -> Projection:
        """Project all flows together."""
        totals = _Totals()
        for flow in flows:
            self._add(totals, flow)
        return totals.as_projection()

    def _add(self, totals: "_Totals", flow: Flow) -> None:
        cell, models = flow.cell, {self.candidate.models[alias] for alias in flow.options}
        totals.tasks += flow.tasks
        certain = len(models) == 1
        others = models - {cell.model}
        if others:
            totals.moved[1] += flow.tasks
            totals.moved[0] += 0 if cell.model in models else flow.tasks
        for model in others:
            least = flow.tasks if certain else 0
            totals.move(cell.model, model, least, flow.tasks)
        if not others and self._has_other_params(flow):
            totals.reparametrised += flow.tasks
        if self.baseline.second != self.candidate.second:
            totals.second_stage += flow.tasks
        self._add_asked(totals, flow, models)
        self._add_cost(totals, flow)

    def _has_other_params(self, flow: Flow) -> bool:
        return any(self.candidate.params[alias] != flow.cell.params for alias in flow.options)

    def _add_asked(self, totals: "_Totals", flow: Flow, models: set[str]) -> None:
        to, tasks = self.candidate.escalates_to, flow.tasks
        for model in models | ({to} if to else set()):
            first_low = tasks if models == {model} else 0.0
            first_high = tasks if model in models else 0.0
            low, high = first_low, first_high
            expected: float | None = first_low if first_low == first_high else None
            if model == to and models != {to}:
                high = tasks
                begun = next(iter(models)) if len(models) == 1 else None
                share = self._share(flow.cell.endpoint, begun) if begun else None
                expected = None if share is None else tasks * share
            totals.ask(model, Bounds(low, high, expected))

    def _add_cost(self, totals: "_Totals", flow: Flow) -> None:
        """Add the cost of the flow's tasks if it is known; nothing if a price is missing."""
        cell = flow.cell
        if not cell.whole.cost_n or not cell.whole.tasks:
            return
        now = cell.whole.cost / cell.whole.cost_n
        found = [self._change(cell, alias, now) for alias in flow.options]
        changes = [change for change in found if change is not None]
        if len(changes) < len(found):
            return
        tasks = flow.tasks * cell.whole.cost_n / cell.whole.tasks
        expected = changes[0].expected if len(changes) == 1 else None
        change = Bounds(min(c.low for c in changes), max(c.high for c in changes), expected)
        totals.covered += tasks
        totals.cost += tasks * now
        totals.change += change.times(tasks)

    def _change(self, cell: Cell, alias: str, now: float) -> Bounds | None:
        """Return the change of cost of one task of the cell that goes to `alias`; None if a price is missing."""
        model, to = self.candidate.models[alias], self.candidate.escalates_to
        if model == cell.model and self.baseline.second == self.candidate.second:
            return ZERO
        call = self._first_call(cell)
        first = _ratios(model, cell.model, self.prices)
        if call is None or first is None:
            return None
        low, high = call[0] * first[0], call[1] * first[1]
        expected: float | None = (low + high) / 2
        if to is not None and to != model:
            second = _ratios(to, cell.model, self.prices)
            if second is None:
                return None
            share, more = self._share(cell.endpoint, model), (call[0] * second[0], call[1] * second[1])
            expected = None if share is None else (low + high) / 2 + share * (more[0] + more[1]) / 2
            high += more[1]
        return Bounds(low - now, high - now, None if expected is None else expected - now)

    def _first_call(self, cell: Cell) -> tuple[float, float] | None:
        """Return what the first call of such a task costs now."""
        if cell.alone.cost_n:
            mean = cell.alone.cost / cell.alone.cost_n
            return mean, mean
        to = self.baseline.escalates_to
        ratios = _ratios(to, cell.model, self.prices) if to else None
        if ratios is None:
            return None
        mean = cell.whole.cost / cell.whole.cost_n
        return mean / (1 + ratios[1]), mean / (1 + ratios[0])

    def _share(self, endpoint: str, model: str) -> float | None:
        """Return the present share of escalations among tasks that begin on this model."""
        if self.candidate.escalates_to in (None, model):
            return 0.0
        for key in ((endpoint, model), (None, model)):
            seen = self.seen.get(key)
            if seen is not None and seen.tasks >= LEAST_SEEN:
                return seen.escalated / seen.tasks
        return None


@dataclass(slots=True)
class _Totals:
    tasks: float = 0.0
    covered: float = 0.0
    cost: float = 0.0
    change: Bounds = ZERO
    moves: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    asked: dict[str, Bounds] = field(default_factory=dict)
    moved: list[float] = field(default_factory=lambda: [0.0, 0.0])
    reparametrised: float = 0.0
    second_stage: float = 0.0

    def move(self, before: str, after: str, least: float, most: float) -> None:
        low, high = self.moves.get((before, after), (0.0, 0.0))
        self.moves[before, after] = (low + least, high + most)

    def ask(self, model: str, tasks: Bounds) -> None:
        self.asked[model] = self.asked.get(model, ZERO) + tasks

    def as_projection(self) -> Projection:
        moves = dict(sorted(self.moves.items(), key=lambda item: (-item[1][1], item[0])))
        return Projection(
            self.tasks, self.covered, self.cost, self.change, moves, dict(sorted(self.asked.items())),
            (self.moved[0], self.moved[1]), self.reparametrised, self.second_stage,
        )  # fmt: skip


def _ratios(one: str, other: str, prices: Prices) -> tuple[float, float] | None:
    """Return the lower and higher of the two ratios of list prices, input and output."""
    if one == other:
        return 1.0, 1.0
    ours, theirs = prices.get(one), prices.get(other)
    if ours is None or theirs is None or not all(theirs):
        return None
    found: Sequence[float] = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
    return found[0], found[1]
