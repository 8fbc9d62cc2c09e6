"""Which column says what: a small YAML file, for a table in which each row is one task with every model's outcome.

    request:
      task_type: {value: reasoning}              # the same for every row
      endpoint: dataset                          # a column
      prompt_tokens: {column: prompt_chars, characters: true}   # tokens = ceil(characters / 4)
      attributes: {subject: subject}
    currency: {name: EUR, usd: 1.08}             # of every `cost`; left out: US dollars
    models:
      openai/gpt-4o-mini:
        success: small_correct                   # 1/0, true/false; empty: ungraded
        cost: small_cost                         # in the currency
        confidence: small_confidence             # 0 … 1
        latency_ms: small_ms                     # or latency_s
        error: small_error                       # a kind of failure; empty: it answered
      openai/gpt-4o:
        score: {column: large_score, success_from: 0.5}
        tokens: {input: prompt_tokens, output: large_output_tokens}
        price_usd_per_million: {input: 2.5, output: 10}          # without it the catalogue's

Without a mapping a table is read by its own column names: `<model>:success`, `<model>:score`, `<model>:cost_usd`,
`<model>:confidence`, `<model>:latency_ms`, `<model>:error`; every other column is a request input (`attributes.x` an
attribute).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rollout_app.backtest.readers import values
from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.readers.rows import Row
from rollout_app.backtest.tasks import Answer, Task

CHARACTERS_A_TOKEN = 4
SUCCESS_FROM = 0.5  # a score from here on is a success, unless the mapping says otherwise
Price = tuple[float, float]  # dollars a million tokens: input, output
Prices = Mapping[str, Price]

_TOP = {"request", "currency", "models"}
_MODEL = {
    "success",
    "score",
    "cost",
    "tokens",
    "price_usd_per_million",
    "confidence",
    "latency_ms",
    "latency_s",
    "error",
}
_FIGURES = ("success", "score", "cost_usd", "confidence", "latency_ms", "error")


@dataclass(frozen=True, slots=True)
class Column:
    """Where a value comes from: a column, or a constant."""

    name: str = ""
    value: Any = None
    characters: bool = False


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """Where one model's outcome comes from. Empty names: it is not recorded."""

    success: str = ""
    score: str = ""
    success_from: float = SUCCESS_FROM
    cost: str = ""
    tokens_in: Column | None = None
    tokens_out: Column | None = None
    price: Price | None = None
    confidence: str = ""
    latency: str = ""
    latency_factor: float = 1.0
    error: str = ""


@dataclass(frozen=True, slots=True)
class TableMapping:
    """A mapping that was read."""

    request: Mapping[str, Column]
    attributes: Mapping[str, Column]
    models: Mapping[str, ModelColumns]
    usd: float = 1.0


@dataclass(slots=True)
class _Reading:
    """One row on its way, with the problems of the whole file."""

    row: Row
    number: int
    problems: Problems
    absent: set[str]
    failed: bool = field(default=False)

    def get(self, column: str, read: Callable[[Any], Any]) -> Any:
        """The column's value by `read`; None where it is missing, and where it can't be read, which is a problem."""
        if column not in self.row:  # JSON leaves out what it does not know; a table's header has all
            return None
        self.absent.discard(column)
        try:
            return read(self.row[column])
        except ValueError as error:
            self.problems.add(self.number, column, f"value of {column}", str(error))
        self.failed = True
        return None


def read_mapping(document: Any) -> TableMapping:
    """A mapping from its YAML's content. Raises `ValueError` with what is wrong and where."""
    if not isinstance(document, Mapping):
        raise ValueError("A mapping is a document with `models` and, if policies ask for inputs, `request`.")
    _only(document, _TOP, "the mapping")
    models = document.get("models")
    if not isinstance(models, Mapping) or not models:
        raise ValueError("`models` names each catalogue model and where its outcome stands.")
    request = dict(document.get("request") or {})
    attributes = request.pop("attributes", None) or {}
    return TableMapping(
        {str(name): _column(entry, f"request.{name}") for name, entry in request.items()},
        {str(name): _column(entry, f"request.attributes.{name}") for name, entry in attributes.items()},
        {str(name): _model(entry, f"models.{name}") for name, entry in models.items()},
        _rate(document.get("currency")),
    )


def own_names(columns: Iterable[str]) -> TableMapping:
    """The mapping that a table's own column names say. Raises `ValueError` where they name no model."""
    request: dict[str, Column] = {}
    attributes: dict[str, Column] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in columns:
        model, _, figure = name.rpartition(":")
        if model and figure in _FIGURES:
            key = {"cost_usd": "cost", "latency_ms": "latency"}.get(figure, figure)
            found.setdefault(model, {})[key] = name
        elif name.startswith("attributes."):
            attributes[name.removeprefix("attributes.")] = Column(name)
        else:
            request[name.removeprefix("request.")] = Column(name)
    if not any("success" in one or "score" in one for one in found.values()):
        raise ValueError("There is no column `<model>:success` or `<model>:score`, and no mapping was given.")
    return TableMapping(request, attributes, {model: ModelColumns(**one) for model, one in found.items()})


def read_table(
    rows: Iterable[tuple[int, Row]],
    source: str,
    mapping: TableMapping | None = None,
    prices: Prices | None = None,
) -> Iterator[Task]:
    """Each row as a task. Raises `UnreadableTasks` after the last row when any value could not be read.

    prices  dollars a million tokens by catalogue model, for models whose tokens are mapped without a price
    """
    problems = Problems()
    absent = _columns(mapping) if mapping is not None else set()
    for number, row in rows:
        if mapping is None:
            mapping = own_names(row)
        reading = _Reading(row, number, problems, absent)
        answers = {}
        for model, columns in mapping.models.items():
            if (answer := _answer(reading, columns, mapping.usd, (prices or {}).get(model))) is not None:
                answers[model] = answer
        request = _inputs(reading, mapping.request)
        if attributes := _inputs(reading, mapping.attributes):
            request["attributes"] = attributes
        if not reading.failed:
            yield Task(request, answers)
    for column in sorted(absent):
        problems.add(0, column, "missing column", "no row has it, and the mapping names it")
    if problems:
        raise UnreadableTasks(source, problems)


def _columns(mapping: TableMapping) -> set[str]:
    """All that the mapping names."""
    found = {column.name for column in (*mapping.request.values(), *mapping.attributes.values())}
    for model in mapping.models.values():
        found |= {model.success, model.score, model.cost, model.confidence, model.latency, model.error}
        found |= {column.name for column in (model.tokens_in, model.tokens_out) if column is not None}
    return found - {""}


def _answer(reading: _Reading, columns: ModelColumns, usd: float, catalogue: Price | None) -> Answer | None:
    """The model's outcome; None where the row says nothing of it at all."""
    success = reading.get(columns.success, values.yes_or_no) if columns.success else None
    quality = reading.get(columns.score, values.number) if columns.score else None
    if success is None and quality is not None:
        success = quality >= columns.success_from
    cost = (
        reading.get(columns.cost, lambda value: values.money(value, per_unit=usd)) if columns.cost else None
    )
    if cost is None and columns.tokens_in is not None:
        cost = _priced(reading, columns, columns.price or catalogue)
    error = reading.get(columns.error, _text) if columns.error else None
    if success is None and quality is None and cost is None and error is None:
        return None
    latency = reading.get(columns.latency, values.number) if columns.latency else None
    return Answer(
        success=False if error is not None else success,
        cost_nusd=cost,
        quality=None if quality is None else min(1.0, max(0.0, quality)),
        confidence=reading.get(columns.confidence, _share) if columns.confidence else None,
        latency_ms=None if latency is None else latency * columns.latency_factor,
        error=error,
    )


def _priced(reading: _Reading, columns: ModelColumns, price: Price | None) -> int | None:
    """Nano-USD of the tokens; None without tokens or without a price."""
    given = _tokens(reading, columns.tokens_in)
    made = 0.0 if columns.tokens_out is None else _tokens(reading, columns.tokens_out)
    if price is None or given is None or made is None:
        return None
    return round(
        (given * price[0] + made * price[1]) * 1_000
    )  # dollars a million tokens are 1,000 nano-USD a token


def _tokens(reading: _Reading, column: Column | None) -> float | None:
    if column is None:
        return None
    found = column.value if column.value is not None else reading.get(column.name, values.number)
    if found is None:
        return None
    if found < 0:
        reading.problems.add(reading.number, column.name, "negative tokens", f"{found:g} tokens")
        reading.failed = True
        return None
    return math.ceil(found / CHARACTERS_A_TOKEN) if column.characters else float(found)


def _inputs(reading: _Reading, columns: Mapping[str, Column]) -> dict[str, Any]:
    found = {}
    for name, column in columns.items():
        if column.characters:
            value: Any = None if (tokens := _tokens(reading, column)) is None else int(tokens)
        elif column.name:
            value = reading.get(column.name, _input)
        else:
            value = column.value
        if value is not None:
            found[name] = value
    return found


def _input(value: Any) -> Any:
    return None if values.missing(value) else values.plain(value)


def _text(value: Any) -> str | None:
    return None if values.missing(value) else str(value)


def _share(value: Any) -> float | None:
    found = values.number(value)
    if found is not None and not 0 <= found <= 1:
        raise ValueError(f"a confidence of {found:g}; 0 to 1 is meant")
    return found


def _column(entry: Any, where: str) -> Column:
    if isinstance(entry, str):
        return Column(entry)
    if isinstance(entry, Mapping):
        _only(entry, {"column", "value", "characters"}, where)
        if ("column" in entry) != ("value" in entry):
            return Column(
                str(entry.get("column", "")), entry.get("value"), bool(entry.get("characters", False))
            )
    raise ValueError(f"{where}: name a column, or write {{value: …}} for a constant.")


def _model(entry: Any, where: str) -> ModelColumns:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: name the columns of this model's outcome.")
    _only(entry, _MODEL, where)
    if not {"success", "score"} & set(entry):
        raise ValueError(f"{where}: `success` or `score` says what came of a task.")
    score = entry.get("score", "")
    scored = {"column": score} if isinstance(score, str) else dict(score)
    tokens = entry.get("tokens") or {}
    seconds = "latency_s" in entry
    return ModelColumns(
        success=str(entry.get("success", "")),
        score=str(scored.get("column", "")),
        success_from=float(scored.get("success_from", SUCCESS_FROM)),
        cost=str(entry.get("cost", "")),
        tokens_in=_column(tokens["input"], f"{where}.tokens.input") if "input" in tokens else None,
        tokens_out=_column(tokens["output"], f"{where}.tokens.output") if "output" in tokens else None,
        price=_price(entry.get("price_usd_per_million"), where),
        confidence=str(entry.get("confidence", "")),
        latency=str(entry.get("latency_s" if seconds else "latency_ms", "")),
        latency_factor=1_000.0 if seconds else 1.0,
        error=str(entry.get("error", "")),
    )


def _price(entry: Any, where: str) -> Price | None:
    if entry is None:
        return None
    try:
        return float(entry["input"]), float(entry.get("output", 0))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"{where}.price_usd_per_million: write {{input: 2.5, output: 10}}.") from None


def _rate(entry: Any) -> float:
    if entry is None or entry == "USD":
        return 1.0
    try:
        rate = float(entry["usd"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("`currency` names itself and its rate: {name: EUR, usd: 1.08}.") from None
    if not 0 < rate < 1e6:
        raise ValueError(f"currency.usd is {rate:g}; what one unit is worth in dollars is meant.")
    return rate


def _only(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(map(str, set(entry) - known)):
        raise ValueError(f"{where}: {', '.join(unknown)} is not known; known are {', '.join(sorted(known))}.")
