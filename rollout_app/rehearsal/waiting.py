"""A backtest, or one decision, while somebody waits for the answer: on a page, or in the API.

A backtest is bounded here, in bytes and in work, so that it holds up nobody else; `manage.py backtest` is not.
"""

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

MOST_BYTES = 4 * 1024 * 1024  # of a file of tasks: what the server lets through
MOST_WORK = 60_000  # tasks × policies: a few seconds
MOST_COMPARED = 5  # versions side by side
ENDINGS = (
    ".csv",
    ".tsv",
    ".jsonl",
    ".ndjson",
    ".json",
    ".parquet",
)  # none compressed: 4 MiB may hold gigabytes


@dataclass(frozen=True, slots=True)
class Asked:
    """What to try on what.

    documents   policies by the name that the answer gives them
    recorded    one of the sets that come along; else `content` is a file with the ending of `file_name`
    mapping     YAML text: which column of a table is what
    log         one of `LOGS`, where the file is a gateway's log
    sweep       PLACE:LOW:HIGH:STEPS of the only policy
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
    """The backtest; of a gateway's log what it says of each policy, by name. Raises `InvalidInput` in words."""
    if not 1 <= len(asked.documents) <= MOST_COMPARED:
        raise InvalidInput(f"Compare 1 to {MOST_COMPARED} versions.")
    try:
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
    """The tasks of what is asked, bounded as a backtest of one policy. Raises `InvalidInput` in words."""
    try:
        with ExitStack() as stack:
            yield _bounded(_tasks(asked, stack), 1)
    except ValueError as error:
        raise InvalidInput(str(error)) from None


def _tasks(asked: Asked, stack: ExitStack) -> Iterator[Task]:
    """The tasks; a file lies in a folder of its own until `stack` is closed."""
    if asked.recorded:
        if asked.recorded not in RECORDED:
            raise ValueError(f"There is no set {asked.recorded[:40]!r}; there are {', '.join(RECORDED)}.")
        return iter(RECORDED[asked.recorded]())
    return open_tasks(_source(asked, stack))


def _source(asked: Asked, stack: ExitStack) -> Source:
    if asked.log and asked.log not in LOGS:
        raise ValueError(f"There is no log {asked.log[:40]!r}; there are {', '.join(LOGS)}.")
    if len(asked.content) > MOST_BYTES:
        raise ValueError(
            f"The file has {len(asked.content):,} bytes, and here at most {MOST_BYTES:,} are read: "
            "`manage.py backtest` reads any."
        )
    ending = Path(asked.file_name).suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(
            f"The file's name ends in {ending or 'nothing'!r}; here it is one of {', '.join(ENDINGS)}."
        )
    home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backtest-")))
    tasks, mapping = home / f"tasks{ending}", home / "mapping.yaml"
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
    )


def _bounded(tasks: Iterator[Task], policies: int) -> Iterator[Task]:
    """The tasks, up to the work that somebody can wait for. Half an answer would not be the answer."""
    for number, task in enumerate(tasks, start=1):
        if number * policies > MOST_WORK:
            raise ValueError(
                f"More than {MOST_WORK:,} tasks times policies are too many to wait for: take fewer, or use "
                "`manage.py backtest`."
            )
        yield task


# --- one decision ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Decided:
    """What a router would do with a request. `prompt_nusd`: what its prompt costs there; None: not known."""

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
    """The request under each policy, as a router that has just started decides. Raises `InvalidInput`."""
    history = request.get("history")
    inputs = {name: value for name, value in request.items() if name != "history"}
    if history is not None and not isinstance(history, Mapping):
        raise InvalidInput('history is an object of figures, such as {"failure_rate": 0.1}.')
    try:
        policies = {name: compile_policy(document) for name, document in documents.items()}
    except PolicyInvalid as error:
        raise InvalidInput(f"The policy is not valid: {error}") from None
    return [decided(name, policy, inputs, history, prices) for name, policy in policies.items()]


def decided(
    name: str, policy: CompiledPolicy, inputs: Mapping[str, Any], history: Any, prices: Prices
) -> Decided:
    """The request under one policy. `history`: figures of the model's last tasks; None: a router's first minute."""
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
    """In nano-USD; None where the number of tokens or the price is not known."""
    if price is None or not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens < 10**9:
        return None
    return round(tokens * price[0] * 1_000)


def versions_of(workload: Workload, log: str) -> Documents:
    """What a router's task log is read with; nothing for any other."""
    if log != "pointsman":
        return {}
    return {version.number: version.document for version in workload.versions.all()}


def documents_of(workload: Workload, numbers: list[int], text: str = "") -> dict[str, dict[str, Any]]:
    """Versions of a workload by `v3`, and a text that is no version yet as `draft`. Raises `InvalidInput`."""
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
