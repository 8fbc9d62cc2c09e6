"""Run a backtest or a single decision within a request, from a page or the API.

The size and work of a backtest are limited here, so that it does not delay other requests; `manage.py backtest` has no
limits.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.core.errors import InvalidInput
from pointsman.errors import PolicyInvalid
from pointsman.evaluate import CompiledPolicy, compile_policy
from pointsman.policy import parse
from policies_app.models import Workload
from rollout_app.backtest import single_log
from rollout_app.backtest.drawn import Documents
from rollout_app.backtest.readers.mapping import Prices
from rollout_app.backtest.run import Backtest, backtest
from rollout_app.backtest.single_log import Agreement
from rollout_app.backtest.sources import LOGS, Source, open_tasks
from rollout_app.backtest.tasks import Task
from rollout_app.backtest.threshold import policies_of
from rollout_app.rehearsal.scenario import RECORDED

MOST_BYTES = 4 * 1024 * 1024  # size of a file of tasks; the server accepts no larger requests
MOST_WORK = 60_000  # tasks × policies: a few seconds
MOST_MAPPED = 200  # models and inputs of a mapping
MOST_COMPARED = 5  # versions in one comparison
# No compressed files, and so no Parquet: a few kB could expand to gigabytes.
ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_PLAIN_NAME = re.compile(r"\w[\w .()+-]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Asked:
    """The input of a backtest: policies and tasks.

    documents   policies by their name in the answer
    recorded    a set of tasks that comes with Pointsman; if empty, `content` is a file with the ending of `file_name`
    mapping     YAML text that maps the columns of a table
    log         one of `LOGS` if the file is a gateway's log
    sweep       PLACE:LOW:HIGH:STEPS, for a single policy
    versions    the workload's versions by number, for a router's task log
    """

    documents: Mapping[str, Mapping[str, Any]]
    recorded: str = ""
    file_name: str = ""
    content: bytes = b""
    mapping: str = ""
    log: str = ""
    latency_unit: str = ""
    grade: str = ""
    success_from: float = 0.5
    sweep: str = ""
    score: str = ""
    prices: Prices = field(default_factory=dict)
    versions: Documents = field(default_factory=dict)


def run(asked: Asked) -> Backtest | dict[str, Agreement]:
    """Run the backtest, or for a gateway's log return the agreement of each policy by name. Raise `InvalidInput`."""
    if not 1 <= len(asked.documents) <= MOST_COMPARED:
        raise InvalidInput(f"Compare 1 to {MOST_COMPARED} versions.")
    try:
        _refuse_unused(asked)
        with ExitStack() as stack:
            if asked.log:
                return single_log.against_log(
                    asked.documents, _source(asked, stack), asked.versions, lambda tasks: _bounded(tasks, 1)
                )
            policies = policies_of(asked.documents, asked.sweep)
            return backtest(
                policies, _bounded(_tasks(asked, stack), len(policies)), score=asked.score or None
            )
    except PolicyInvalid as error:
        raise InvalidInput(f"The policy is not valid: {error}") from None
    except ValueError as error:
        raise InvalidInput(str(error)) from None


@contextmanager
def tasks_of(asked: Asked) -> Iterator[Iterator[Task]]:
    """Yield the tasks, limited like a backtest of one policy. Raise `InvalidInput`."""
    try:
        _refuse_unused(asked)
        with ExitStack() as stack:
            yield _bounded(_tasks(asked, stack), 1)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _refuse_unused(asked: Asked) -> None:
    """Raise `ValueError` for what these tasks do not take. `sources` checks how a file is read."""
    kind, names = "A log with one model per task", ["sweep", "score"] if asked.log else []
    if asked.recorded:
        kind, names = "An included set of tasks", ["log", "mapping", "latency_unit", "grade"]
    if unused := [name for name in names if getattr(asked, name)]:
        raise ValueError(f"{kind} takes no `{unused[0]}`.")


def _tasks(asked: Asked, stack: ExitStack) -> Iterator[Task]:
    """Return the tasks. A file stays in its own temporary folder until `stack` is closed."""
    if asked.recorded:
        if asked.recorded not in RECORDED:
            raise ValueError(f"There is no set {asked.recorded[:40]!r}; use one of {', '.join(RECORDED)}.")
        return iter(RECORDED[asked.recorded]())
    return open_tasks(_source(asked, stack))


def _source(asked: Asked, stack: ExitStack) -> Source:
    if asked.log and asked.log not in LOGS:
        raise ValueError(f"There is no log {asked.log[:40]!r}; use one of {', '.join(LOGS)}.")
    if len(asked.content) > MOST_BYTES:
        raise ValueError(
            f"The file has {len(asked.content):,} bytes; at most {MOST_BYTES:,} are allowed here. "
            "`manage.py backtest` has no limit."
        )
    ending = Path(asked.file_name).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"The file's name must end in one of {', '.join(ENDINGS)}, not {ending or 'nothing'!r}. "
            "`manage.py backtest` also reads Parquet and .gz."
        )
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backtest-")))
    # Errors name the file, so it keeps the name that the person gave it, unless a path could not hold it.
    named = Path(asked.file_name).name if _PLAIN_NAME.fullmatch(asked.file_name) else f"tasks{ending}"
    tasks, mapping = home / named, home / "the mapping"
    tasks.write_bytes(asked.content)
    mapping.write_text(asked.mapping, encoding="utf-8")
    return Source(
        path=str(tasks),
        log=asked.log,
        mapping=str(mapping) if asked.mapping.strip() else "",
        latency_unit=asked.latency_unit,
        grade=asked.grade,
        success_from=asked.success_from,
        prices=asked.prices,
        most_mapped=MOST_MAPPED,
    )


def _bounded(tasks: Iterator[Task], policies: int) -> Iterator[Task]:
    """Yield the tasks; raise `ValueError` if the work exceeds the limit. A partial answer would be misleading."""
    for number, task in enumerate(tasks, start=1):
        if number * policies > MOST_WORK:
            raise ValueError(
                f"More than {MOST_WORK:,} tasks times policies are too many to wait for: use fewer, or run "
                "`manage.py backtest`."
            )
        yield task


# --- one decision ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decided:
    """A router's decision on a request. `prompt_nusd`: the cost of its prompt with this model; None: not known."""

    name: str
    model: str
    alias: str
    rule: str
    reason: str
    missing: tuple[str, ...]
    params: Mapping[str, Any]
    error: bool
    prompt_nusd: int | None
    escalates_to: str


def decide(
    documents: Mapping[str, Mapping[str, Any]], request: Mapping[str, Any], prices: Prices
) -> list[Decided]:
    """Decide the request with each policy, like a router that has just started. Raise `InvalidInput`."""
    history = request.get("history")
    inputs = {name: value for name, value in request.items() if name != "history"}
    if history is not None and not isinstance(history, Mapping):
        raise InvalidInput('history must be an object of figures, such as {"failure_rate": 0.1}.')
    try:
        policies = {name: compile_policy(document) for name, document in documents.items()}
    except PolicyInvalid as error:
        raise InvalidInput(f"The policy is not valid: {error}") from None
    return [decided(name, policy, inputs, history, prices) for name, policy in policies.items()]


def decided(
    name: str, policy: CompiledPolicy, inputs: Mapping[str, Any], history: Any, prices: Prices
) -> Decided:
    """Decide the request with one policy. `history`: figures of recent tasks; None: a router's first minute."""
    route = policy.route(inputs, history)
    second = policy.escalate
    return Decided(
        name=name,
        model=route.model,
        alias=route.alias,
        rule=route.rule,
        reason=route.reason,
        missing=route.missing,
        params=dict(route.params),
        error=route.error,
        prompt_nusd=_prompt_cost(inputs.get("prompt_tokens"), prices.get(route.model)),
        escalates_to=policy.models[second.to][0] if second is not None else "",
    )


def _prompt_cost(tokens: Any, price: tuple[float, float] | None) -> int | None:
    """Return the cost in nano-USD, or None if the number of tokens or the price is not known."""
    if price is None or not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens < 10**9:
        return None
    return round(tokens * price[0] * 1_000)


def versions_of(workload: Workload, log: str) -> Documents:
    """Return the versions needed to read a router's task log; empty for other logs."""
    if log != "pointsman":
        return {}
    return {version.number: version.document for version in workload.versions.all()}


def documents_of(workload: Workload, numbers: list[int], text: str = "") -> dict[str, dict[str, Any]]:
    """Return versions of a workload as `v3`, and an unsaved text as `draft`. Raise `InvalidInput`."""
    found = {version.number: version.document for version in workload.versions.filter(number__in=numbers)}
    if missing := [number for number in numbers if number not in found]:
        raise InvalidInput(f"{workload.name} has no version {missing[0]}.")
    documents: dict[str, dict[str, Any]] = {f"v{number}": dict(found[number]) for number in numbers}
    if text.strip():
        try:
            documents["draft"] = dict(parse(text).data)
        except PolicyInvalid as error:
            raise InvalidInput(f"The draft is not valid: {error}") from None
    return documents
