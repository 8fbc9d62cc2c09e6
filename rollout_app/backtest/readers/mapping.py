"""Map the columns of a table whose rows are tasks with every model's outcome. The mapping is a small YAML file:

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
        tokens: {input: prompt_tokens, output: large_output_tokens}  # without output no cost, unless its price is 0
        price_usd_per_million: {input: 2.5, output: 10}          # without it the catalogue's

Without a mapping, the table's column names are used: `<model>:success`, `<model>:score`, `<model>:cost_usd`,
`<model>:confidence`, `<model>:latency_ms`, `<model>:error`; every other column is a request input (`attributes.x` is
an attribute).
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

CHARACTERS_A_TOKEN = 4
SUCCESS_FROM = 0.5  # the lowest score that is a success, unless the mapping sets another
Price = tuple[float, float]  # dollars per million tokens: input, output
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
    """The source of a value: a column or a constant."""

    name: str = ""
    value: Any = None
    characters: bool = False

    @property
    def constant(self) -> Any:
        """The same value for every row."""
        return math.ceil(self.value / CHARACTERS_A_TOKEN) if self.characters else self.value


@dataclass(frozen=True, slots=True)
class ModelColumns:
    """The columns of one model's outcome. Empty: not recorded."""

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
    """A parsed mapping."""

    request: Mapping[str, Column]
    attributes: Mapping[str, Column]
    models: Mapping[str, ModelColumns]
    usd: float = 1.0

    @property
    def size(self) -> int:
        """The number of models and inputs that are read from each row."""
        return len(self.models) + len(self.request) + len(self.attributes)


def read_mapping(document: Any) -> TableMapping:
    """Parse the content of a mapping's YAML. Raises `ValueError` that says what is wrong and where."""
    if not isinstance(document, Mapping):
        raise ValueError("A mapping is a document with `models` and, if policies read inputs, `request`.")
    _only(document, _TOP, "the mapping")
    models = document.get("models")
    if not isinstance(models, Mapping) or not models:
        raise ValueError("`models` must map each catalogue model to the columns of its outcome.")
    request = dict(_object(document.get("request"), "request"))
    attributes = _object(request.pop("attributes", None), "request.attributes")
    return TableMapping(
        {str(name): _column(entry, f"request.{name}") for name, entry in request.items()},
        {str(name): _column(entry, f"request.attributes.{name}") for name, entry in attributes.items()},
        {str(name): _model(entry, f"models.{name}") for name, entry in models.items()},
        _rate(document.get("currency")),
    )


def own_names(columns: Iterable[str]) -> TableMapping:
    """Return the mapping given by a table's own column names; without models if they name none."""
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
    _refuse_unknown_figures(request, found)
    return TableMapping(request, attributes, {model: ModelColumns(**one) for model, one in found.items()})


def _refuse_unknown_figures(request: Mapping[str, Column], models: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse `m:cost` beside `m:success`: as an input of the request it would leave every cost unknown, silently."""
    for column in request.values():
        model, _, _ = column.name.rpartition(":")
        if {"success", "score"} & set(models.get(model, ())):
            known = ", ".join(f"{model}:{figure}" for figure in _FIGURES)
            raise ValueError(f"The column {column.name!r} is not known; this model's columns are {known}.")


def _column(entry: Any, where: str) -> Column:
    if isinstance(entry, str):
        return Column(entry)
    if isinstance(entry, Mapping):
        _only(entry, {"column", "value", "characters"}, where)
        if ("column" in entry) != ("value" in entry):
            value, characters = entry.get("value"), entry.get("characters", False)
            if isinstance(value, (Mapping, list)):
                raise ValueError(f"{where}: a constant must be a text, a number, true or false.")
            if not isinstance(characters, bool):
                raise ValueError(f"{where}.characters: expected true or false, not {_shown(characters)}.")
            if characters and "value" in entry and _number(value, f"{where}.value") < 0:
                raise ValueError(f"{where}.value: characters must be 0 or more.")
            return Column(_name(entry, "column", where), value, characters)
    raise ValueError(f"{where}: name a column, or write {{value: …}} for a constant.")


def _model(entry: Any, where: str) -> ModelColumns:
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: name the columns of this model's outcome.")
    _only(entry, _MODEL, where)
    if not {"success", "score"} & set(entry):
        raise ValueError(f"{where}: give `success` or `score`, the outcome of a task.")
    if {"latency_ms", "latency_s"} <= set(entry):
        raise ValueError(f"{where}: give either `latency_ms` or `latency_s`, not both.")
    score = entry.get("score", "")
    scored = {"column": score} if isinstance(score, str) else _object(score, f"{where}.score")
    _only(scored, {"column", "success_from"}, f"{where}.score")
    tokens = _object(entry.get("tokens"), f"{where}.tokens")
    _only(tokens, {"input", "output"}, f"{where}.tokens")
    seconds = "latency_s" in entry
    return ModelColumns(
        success=_name(entry, "success", where),
        score=_name(scored, "column", f"{where}.score"),
        success_from=_number(scored.get("success_from", SUCCESS_FROM), f"{where}.score.success_from"),
        cost=_name(entry, "cost", where),
        tokens_in=_tokens(tokens, "input", where),
        tokens_out=_tokens(tokens, "output", where),
        price=_price(entry.get("price_usd_per_million"), where),
        confidence=_name(entry, "confidence", where),
        latency=_name(entry, "latency_s" if seconds else "latency_ms", where),
        latency_factor=1_000.0 if seconds else 1.0,
        error=_name(entry, "error", where),
    )


def _tokens(tokens: Mapping[str, Any], kind: str, where: str) -> Column | None:
    if kind not in tokens:
        return None
    column = _column(tokens[kind], f"{where}.tokens.{kind}")
    if not column.name and _number(column.value, f"{where}.tokens.{kind}.value") < 0:
        raise ValueError(f"{where}.tokens.{kind}.value: tokens must be 0 or more.")
    return column


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{where}: expected a number, not {_shown(value)}.")
    return float(value)


def _name(entry: Mapping[str, Any], key: str, where: str) -> str:
    """Return the name of a column; empty if none is given."""
    value = entry.get(key)
    if value is not None and not isinstance(value, (str, int)):
        raise ValueError(f"{where}.{key}: expected the name of a column, not {_shown(value)}.")
    return "" if value is None else str(value)


def _shown(value: Any) -> str:
    return repr(value)[:40] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"


def _object(value: Any, where: str) -> Mapping[str, Any]:
    """Return the object; empty if there is none."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected an object, not {_shown(value)}.")
    return value


def _price(entry: Any, where: str) -> Price | None:
    if entry is None:
        return None
    entry = _object(entry, f"{where}.price_usd_per_million")
    _only(entry, {"input", "output"}, f"{where}.price_usd_per_million")
    if {"input", "output"} - set(entry):
        raise ValueError(
            f"{where}.price_usd_per_million: write both, {{input: 2.5, output: 10}}; 0 if one is free."
        )
    prices = [_number(entry[kind], f"{where}.price_usd_per_million.{kind}") for kind in ("input", "output")]
    if min(prices) < 0:
        raise ValueError(f"{where}.price_usd_per_million: a price must be 0 or more.")
    return prices[0], prices[1]


def _rate(entry: Any) -> float:
    if entry is None or entry == "USD":
        return 1.0
    if not isinstance(entry, Mapping) or "usd" not in entry:
        raise ValueError("`currency` needs a name and a rate: {name: EUR, usd: 1.08}.")
    rate = _number(entry["usd"], "currency.usd")
    if not 0 < rate < 1e6:
        raise ValueError(f"currency.usd is {rate:g}; it must be the value of one unit in dollars.")
    return rate


def _only(entry: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(map(str, set(entry) - known)):
        raise ValueError(f"{where}: unknown {', '.join(unknown)}; allowed are {', '.join(sorted(known))}.")
