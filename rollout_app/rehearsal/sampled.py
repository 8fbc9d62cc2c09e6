"""Run versions over many recorded requests: which models each would use, where they differ, which inputs are missing.

This reads only the inputs of requests (a router's task log and its samples hold figures and names, never a text), not
their outcomes. For outcomes, use a backtest.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from controlplane.core.errors import InvalidInput
from pointsman.errors import PolicyInvalid
from pointsman.evaluate import CompiledPolicy, compile_policy
from policies_app.models import Environment, Workload
from rollout_app.backtest.readers.mapping import Prices
from rollout_app.backtest.tasks import Task
from rollout_app.outcomes import sampled_inputs
from rollout_app.rehearsal.waiting import Decided, decided

MOST_INPUTS = 1_000  # requests read from the end of a file
SHOWN = 20  # requests shown individually


@dataclass(slots=True)
class Routed:
    """One version's decisions on all requests.

    models, rules, missing   number of requests by model, rule and missing input
    errors                   requests for which the policy could not be evaluated and its guard decided
    prompt_nusd, priced      the total cost of the prompts, and the number of requests for which it is known
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
        """The counts, most frequent first, as lists. (In a template, `counter.items` would look up the key "items".)"""
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


Shown = tuple[list[tuple[str, Any]], list[Decided]]  # a request's inputs, and each version's decision


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison of versions on the last requests of a file.

    given, looked_at   number of requests in the file, and of those that were compared (the last ones)
    differing          number of requests for which not all versions choose the same model
    moves              the differing requests by (first version's model, last version's model)
    shown              some individual requests: differing ones, or if there are none, the last ones
    """

    given: int
    looked_at: int
    differing: int
    versions: list[Routed]
    moves: list[tuple[str, str, int]]
    shown: list[Shown]


def newest(environment: Environment, workload: Workload) -> list[dict[str, Any]]:
    """Return the inputs that routers sampled last, oldest first. Raise `InvalidInput` if there are none."""
    found = sampled_inputs.latest(environment, workload)
    if not found:
        raise InvalidInput(
            f"No router has sent inputs of {workload.name} in {environment.name} in the last 7 days. Routers send "
            "samples only with the option `sample_inputs`."
        )
    return found


def compare(documents: Mapping[str, Mapping[str, Any]], tasks: Iterable[Task], prices: Prices) -> Compared:
    """Decide the last requests with each policy, like a router that has just started. Raise `InvalidInput`."""
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
        raise InvalidInput("The file contains no tasks.")
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
    """Return the comparison as plain data. Money in nano-USD; null if no prompt's cost is known."""
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
