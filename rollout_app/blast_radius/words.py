"""The blast radius as sentences, and what is unknown about it. Pure."""

import math
from typing import NamedTuple

from controlplane.web.display import MINUS, NONE, count, money, percent
from rollout_app.blast_radius.projection import Bounds, Projection
from rollout_app.blast_radius.radius import BY_DOCUMENTS, BY_NOTHING, BY_SHADOW, BlastRadius, EndpointRadius

_LEAST_SHARE = 0.0005  # smaller shares are not mentioned
_Z = 1.96  # 95 %


def headline(radius: BlastRadius) -> str:
    """Describe what would move in one sentence."""
    if radius.basis == BY_NOTHING:
        return "There was no traffic in the last 7 days, so it is unknown what would move."
    if not radius.whole.tasks:
        return "It is unknown what would move of the traffic of the last 7 days."
    moved, cost = _shares(radius.whole.moved, radius.whole.tasks), _cost(radius.whole, radius.week.span.words)
    if radius.whole.moved[1] < _LEAST_SHARE * radius.whole.tasks:
        return f"No task would move to another first model. {cost}"
    return f"{_capital(moved)} of the tasks would move to another first model. {cost}"


def endpoint_sentence(radius: EndpointRadius, owner: str, per: str = "a day") -> str:
    """Describe one endpoint; `per`: the time of its figures: `/tickets/summary (team Support): of 4,200 tasks a day
    31 % from a to b. −$412 a day, …`
    """
    name = f"{radius.endpoint or 'Tasks without an endpoint'} (team {owner})"
    if not radius.projection.tasks:
        return f"{name}: it is unknown what would move of its {_tasks(radius.traffic)} {per}."
    moved = ", ".join(_moves(radius.projection)) or "nothing to another first model"
    return f"{name}: of {_tasks(radius.traffic)} {per} {moved}. {_cost(radius.projection, per)}"


def _moves(projection: Projection) -> list[str]:
    return [
        f"{_shares(tasks, projection.tasks)} from {before} to {after}"
        for (before, after), tasks in projection.moves.items()
        if tasks[1] >= _LEAST_SHARE * projection.tasks
    ]


class EndpointRow(NamedTuple):
    """One endpoint as a row of a table; costs as in `Week`. `between` is empty if the change is exact or unknown."""

    name: str
    tasks: str
    moves: list[str]
    now: str
    change: str
    between: str


def endpoint_row(radius: EndpointRadius) -> EndpointRow:
    """Describe one endpoint like `endpoint_sentence`, in cells."""
    projection, name = radius.projection, radius.endpoint or "no endpoint"
    tasks = _number(radius.traffic)
    if not projection.tasks:
        return EndpointRow(name, tasks, ["unknown"], NONE, "unknown", "")
    moves = _moves(projection) or ["nothing to another first model"]
    if not projection.covered:
        return EndpointRow(name, tasks, moves, NONE, "unknown", "")
    return EndpointRow(name, tasks, moves, money(projection.cost), *_change(projection.change))


def _change(change: Bounds) -> tuple[str, str]:
    low, high = _signed(change.low), _signed(change.high)
    if low == high:
        return low, ""
    between = f"{low} to {high}"
    return (between, "") if change.expected is None else (_signed(change.expected), between)


def unknowns(radius: BlastRadius) -> list[str]:
    """List what is unknown, with what would show it."""
    if radius.basis == BY_NOTHING:
        return [
            *_pin(radius),
            "Backtest the candidate over recorded tasks, or let a shadow stage collect decisions.",
        ]
    return [
        *_pin(radius), *_of_moves(radius), *_of_traffic(radius), *_of_costs(radius), *_of_the_second_stage(radius),
        *_of_quality(radius),
    ]  # fmt: skip


def _pin(radius: BlastRadius) -> list[str]:
    return [f"Pinned to {radius.pinned}: nothing moves until it is unpinned."] if radius.pinned else []


def _of_moves(radius: BlastRadius) -> list[str]:
    low, high = radius.whole.moved
    unsure = (high - low) / radius.whole.tasks if radius.whole.tasks else 0.0
    said = []
    if radius.basis == BY_DOCUMENTS and unsure >= _LEAST_SHARE:
        said.append(
            f"It is unknown where {percent(unsure)} of the tasks would go: their inputs are not stored, and the rule "
            "that decided does not say enough. A shadow stage will show it."
        )
    if radius.basis == BY_SHADOW and (off := _by_chance(radius)) >= _LEAST_SHARE:
        said.append(
            f"The shares come from {count(radius.decisions)} shadow decisions. The share that moves may be off by "
            f"{off * 100:.1f} points by chance (95 %), and the change in cost in proportion."
        )
    if radius.differing is None:
        said.append(
            "No router has compared the two policies yet, so the share of differing tasks is unknown."
        )
    if radius.whole.reparametrised >= _LEAST_SHARE * radius.whole.tasks > 0:
        share = radius.whole.reparametrised / radius.whole.tasks
        said.append(
            f"{percent(share)} of the tasks keep their model but get other parameters. The effect on their cost and "
            "success is unknown."
        )
    return said


def _by_chance(radius: BlastRadius) -> float:
    """Return half the width of the 95 % interval of the share that moves (Wilson 1927), for independent decisions."""
    n, tasks = radius.decisions, radius.whole.tasks
    if not n or not tasks:
        return 0.0
    moved = min(1.0, radius.whole.moved[1] / tasks)
    return _Z / (1 + _Z**2 / n) * math.sqrt(moved * (1 - moved) / n + _Z**2 / (4 * n * n))


def _of_traffic(radius: BlastRadius) -> list[str]:
    week, said = radius.week, []
    if not week.span.is_long:
        said.append(f"The traffic of {week.span.length} is too short for figures per day.")
    elif week.span.days < 6.5:
        said.append(f"There was traffic in only {week.span.length.split()[0]} of the 7 days.")
    if week.pinned >= _LEAST_SHARE:
        said.append(
            f"{percent(week.pinned)} of the week's tasks ran under a pin, so no policy decided them. What would move "
            "is derived from the other tasks."
        )
    if not week.own_version and radius.basis != BY_SHADOW:
        if week.others > 0:
            said.append(
                f"Version {radius.baseline.number} has had hardly any traffic, so tasks of other versions are used."
            )
    elif week.others >= 0.05:
        said.append(
            f"{percent(week.others)} of the week's tasks were served by other versions; shares are those of version "
            f"{radius.baseline.number}."
        )
    silent = [each.endpoint or "no endpoint" for each in radius.endpoints if not each.projection.tasks]
    if silent:
        said.append(
            f"Nothing is known about {', '.join(silent[:5])}{' and others' if len(silent) > 5 else ''}."
        )
    return said


def _of_costs(radius: BlastRadius) -> list[str]:
    whole = radius.whole
    share = whole.covered / whole.tasks if whole.tasks else 0.0
    if share >= 0.9995:
        return []
    why = f" No price: {', '.join(radius.unpriced_models)}." if radius.unpriced_models else ""
    if not whole.covered:
        return [f"The cost is unknown: no task has a cost, or a price is missing.{why}"]
    return [f"Costs cover the {percent(share)} of the tasks whose cost and prices are known.{why}"]


def _of_the_second_stage(radius: BlastRadius) -> list[str]:
    if not radius.whole.covered or radius.whole.change.expected is not None:
        return []
    if radius.whole.change.low == radius.whole.change.high:
        return []
    return [
        "It is unknown how many tasks will be escalated. The bounds assume none and all of them, at the lowest and the "
        "highest price ratio."
    ]


def _of_quality(radius: BlastRadius) -> list[str]:
    if any(route.mirror["n"] for route in radius.rehearsed.values()):
        return []
    if (past := radius.went_back) is not None:
        return [
            f"The same candidate was rolled back before: {past.rollback_reason or 'no reason was recorded'}"
        ]
    return [
        "The effect on success is unknown until tasks are tried: mirror a share of them, or backtest the candidate."
    ]


# --- figures -----------------------------------------------------------------------------------------------


def _cost(projection: Projection, per: str) -> str:
    if not projection.covered:
        return "The cost is unknown."
    return f"{_capital(amount(projection.change, per))}, at {money(projection.cost)} {per} now."


def amount(change: Bounds, per: str) -> str:
    """Format a change in cost `per` a time: `−$412 a day`, `between −$412 and +$3 a day (−$350 expected)`."""
    low, high = _signed(change.low), _signed(change.high)
    if low == high:
        return f"{low} {per}" if round(change.high) else "no change in cost"
    expected = "" if change.expected is None else f" ({_signed(change.expected)} expected)"
    return f"between {low} and {high} {per}{expected}"


def _signed(nusd: float) -> str:
    whole = round(nusd)
    return f"{'+' if whole > 0 else MINUS if whole < 0 else ''}{money(abs(whole))}"


def _shares(tasks: tuple[float, float], of: float) -> str:
    low, high = (percent(part / of, 0 if part / of >= 0.1 else 1) for part in tasks)
    return low if low == high else f"between {low} and {high}"


def _number(number: float) -> str:
    return count(number) if number >= 10 else f"{number:.1f}"


def _tasks(number: float) -> str:
    return f"{_number(number)} tasks"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
