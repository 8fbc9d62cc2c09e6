"""Versions over many requests: what each would ask, where they differ, and what they were not told.

Only the inputs of recorded tasks are looked at (a router's task log holds figures and names, never a text), not what
came of them: that is the backtest's question.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controlplane.core.errors import InvalidInput
from pointsman.errors import PolicyInvalid
from pointsman.evaluate import CompiledPolicy, compile_policy
from rollout_app.backtest.readers.mapping import Prices
from rollout_app.backtest.tasks import Task
from rollout_app.rehearsal.waiting import Decided, decided

MOST_INPUTS = 1_000  # the last ones of a file
SHOWN = 20  # requests, one by one


@dataclass(slots=True)
class Routed:
    """What one version does with all of the requests.

    models, rules, missing   how many requests each; an absent input is counted once a request
    errors                   the policy could not be evaluated, and its guard decided
    prompt_nusd, priced      what their prompts cost, of those `priced` requests of which that is known
    """

    name: str
    models: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    errors: int = 0
    prompt_nusd: int = 0
    priced: int = 0

    @property
    def tables(self) -> dict[str, list[tuple[str, int]]]:
        """Each count by what is most frequent. (A template asks a Counter for `items` by its key, and gets 0.)"""
        counts = {"models": self.models, "rules": self.rules, "missing": self.missing}
        return {name: found.most_common() for name, found in counts.items()}

    def add(self, one: Decided) -> None:
        self.models[one.model] += 1
        self.rules[one.rule] += 1
        self.missing.update(one.missing)
        self.errors += one.error
        if one.prompt_nusd is not None:
            self.prompt_nusd += one.prompt_nusd
            self.priced += 1


Shown = tuple[list[tuple[str, Any]], list[Decided]]  # a request's inputs, and what each version decides


@dataclass(frozen=True, slots=True)
class Compared:
    """Versions over the last requests of a file.

    given, looked_at   requests: in the file, and of these the last ones
    differing          not all versions ask the same model; `moves` are these by (first version's, last version's)
    shown              some of them one by one: those that differ, else the last
    """

    given: int
    looked_at: int
    differing: int
    versions: list[Routed]
    moves: list[tuple[str, str, int]]
    shown: list[Shown]


def compare(documents: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task], prices: Prices) -> Compared:
    """Each of the last requests under each policy, as a router that has just started decides. Raises `InvalidInput`."""
    try:
        policies = {name: compile_policy(document) for name, document in documents.items()}
    except PolicyInvalid as error:
        raise InvalidInput(f"The policy is not valid: {error}") from None
    last: deque[Mapping[str, Any]] = deque(maxlen=MOST_INPUTS)
    given = 0
    for task in tasks:
        given += 1
        last.append(task.request)
    if not last:
        raise InvalidInput("There are no tasks in it.")
    return _compared(policies, given, list(last), prices)


def _compared(
    policies: Mapping[str, CompiledPolicy], given: int, requests: list[Mapping[str, Any]], prices: Prices
) -> Compared:
    versions = [Routed(name) for name in policies]
    moves: Counter[tuple[str, str]] = Counter()
    same, differ = list[Shown](), list[Shown]()
    for request in reversed(requests):
        found = [decided(name, policy, request, None, prices) for name, policy in policies.items()]
        for version, one in zip(versions, found, strict=True):
            version.add(one)
        differs = len({one.model for one in found}) > 1
        if differs:
            moves[found[0].model, found[-1].model] += 1
        kept = differ if differs else same
        if len(kept) < SHOWN:
            kept.append((list(request.items()), found))
    return Compared(
        given=given,
        looked_at=len(requests),
        differing=sum(moves.values()),
        versions=versions,
        moves=[(before, after, count) for (before, after), count in moves.most_common()],
        shown=differ or same,
    )


def as_document(found: Compared) -> dict[str, Any]:
    """The same as plain data. Money in nano-USD; null where no prompt's cost is known."""
    return {
        "requests": found.given,
        "looked_at": found.looked_at,
        "differing": found.differing,
        "versions": [
            {
                "name": one.name,
                "models": dict(one.models),
                "rules": dict(one.rules),
                "missing": dict(one.missing),
                "errors": one.errors,
                "prompt_nusd": one.prompt_nusd if one.priced else None,
                "priced": one.priced,
            }
            for one in found.versions
        ],
        "moves": [{"from": before, "to": after, "requests": count} for before, after, count in found.moves],
        "shown": [
            {"request": dict(inputs), "decisions": [asdict(one) for one in decisions]}
            for inputs, decisions in found.shown
        ],
    }
