"""What tasks would cost on other models, and which models they would ask, as bounds. Pure.

What is known of a task is what it cost and which models it asked. On another model it is taken to use the same tokens,
so its first call costs as much more or less as the prices say. How many tokens went in and how many came out is not
reported: the two ratios of prices, of input and of output, are the ends. Whether a task would then be escalated nobody
knows before it was tried: the bounds reach from none to all of them, and `expected` takes the share of tasks that do
so now where the same second stage is served, if it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rollout_app.engine.diagnosis import OutcomeSums

LEAST_SEEN = 100  # tasks from which a share of escalations is taken for other tasks

Prices = Mapping[str, tuple[int, int]]  # catalogue model: nano-USD per million input and output tokens


class Bounds(NamedTuple):
    """Between `low` and `high`; `expected` is None where nothing says what to expect between them."""

    low: float
    high: float
    expected: float | None

    def __add__(self, other: "Bounds") -> "Bounds":  # type: ignore[override]  # adds up, not on
        both = None if self.expected is None or other.expected is None else self.expected + other.expected
        return Bounds(self.low + other.low, self.high + other.high, both)

    def times(self, factor: float) -> "Bounds":
        """`factor` is not negative."""
        expected = None if self.expected is None else self.expected * factor
        return Bounds(self.low * factor, self.high * factor, expected)


ZERO = Bounds(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class PolicyShape:
    """What a projection asks of a policy: its models by their catalogue names, and its second stage.

    `second` compares equal where two policies go on alike after an attempt.
    """

    models: Mapping[str, str]
    params: Mapping[str, Any]
    escalates_to: str | None  # the catalogue's name
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
    """The tasks of one endpoint that one rule sent to one model now.

    `whole`: all of them. `alone`: those that this model answered, without an escalation.
    """

    endpoint: str
    rule: str
    model: str  # the catalogue's name
    params: Mapping[str, Any]
    whole: OutcomeSums
    alone: OutcomeSums


@dataclass(frozen=True, slots=True)
class Flow:
    """Tasks of a cell, and the candidate's own names of the models that they may go to; one: it is certain."""

    cell: Cell
    options: tuple[str, ...]
    tasks: float


class Seen(NamedTuple):
    """Tasks that began on a model under the same second stage, and how many of them were escalated."""

    tasks: int
    escalated: int


@dataclass(frozen=True, slots=True)
class Projection:
    """`change`: of the cost of the tasks that are covered, in nano-USD. `covered`, `tasks`: counts.

    moves            (from, to) → the least and the most tasks whose first model changes so
    moved            the least and the most tasks whose first model changes
    asked            model → tasks that ask it at some stage
    reparametrised   tasks that keep their model and get other parameters
    second_stage     tasks that would go on differently after the same first answer
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
    """Projects flows from a baseline to a candidate. `seen` is by (endpoint, model) and by (None, model)."""

    baseline: PolicyShape
    candidate: PolicyShape
    prices: Prices
    seen: Mapping[tuple[str | None, str], Seen] = field(default_factory=dict)

    def project(self, flows: Iterable[Flow]) -> Projection:
        """All flows together."""
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
        """Of the flow's tasks whose cost is known; none where a price is not."""
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
        """Change of the cost of one task of the cell that goes to `alias`; None where a price is not known."""
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
        """What the first call of such a task costs now."""
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
        """The share of tasks that are escalated now where they begin on this model."""
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
    """The lower and the higher of the two ratios of list prices, input and output."""
    if one == other:
        return 1.0, 1.0
    ours, theirs = prices.get(one), prices.get(other)
    if ours is None or theirs is None or not all(theirs):
        return None
    found: Sequence[float] = sorted(mine / its for mine, its in zip(ours, theirs, strict=True))
    return found[0], found[1]
