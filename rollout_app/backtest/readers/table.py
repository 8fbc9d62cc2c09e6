"""Read a table as tasks: each row is one task with the outcome of every model.

The mapping is resolved once for all rows with the same columns (`_Layout`), so that reading a row is little more than
looking at each value: a million rows take seconds.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from rollout_app.backtest.readers import values
from rollout_app.backtest.readers.mapping import (
    CHARACTERS_A_TOKEN,
    Column,
    ModelColumns,
    Price,
    Prices,
    TableMapping,
    own_names,
)
from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.readers.rows import Columns, Record
from rollout_app.backtest.tasks import Answer, Task

Values = Sequence[Any]
Figure = Callable[[Values], Any]  # of a row; raises ValueError if it cannot be read
_MOST_LAYOUTS = 1_000  # JSON rows may have different keys
_MOST_KEPT = 50_000  # mapped models and inputs of the layouts in memory: about 1 kB each
_MOST_RESOLVED = 3_000_000  # mapped models and inputs, for all layouts together: half a minute
_NO_MODEL_AFTER = 10_000  # rows: if no model was named by then, it is not a table of tasks


def read_table(
    records: Iterable[Record],
    source: str,
    problems: Problems,
    mapping: TableMapping | None = None,
    prices: Prices | None = None,
) -> Iterator[Task]:
    """Yield each row as a task. Raises `UnreadableTasks` after the last row if anything could not be read.

    problems  those of the rows that `records` left out
    mapping   None: use the column names
    prices    dollars per million tokens by catalogue model, for models with mapped tokens but no price
    """
    absent = _named(mapping) if mapping is not None else set()
    layouts: dict[Columns, _Layout] = {}
    graded = mapping is not None
    size = 0 if mapping is None else mapping.size
    number = resolved = 0
    most = min(_MOST_LAYOUTS, _MOST_KEPT // (size or 1))
    for number, columns, row in records:
        layout = layouts.get(columns)
        if layout is None:
            if len(layouts) >= most:
                layouts.clear()
            if (resolved := resolved + size) > _MOST_RESOLVED:
                raise ValueError(
                    f"{source}: its rows have too many different sets of columns for so large a mapping. "
                    "Give all rows the same columns, as in CSV."
                )
            layout = layouts[columns] = _Layout(mapping or own_names(columns), columns, prices or {})
            absent -= set(columns)
            graded = graded or layout.graded
        if not graded and number > _NO_MODEL_AFTER:
            break
        try:
            task = layout.task(row)
        except (ValueError, TypeError) as error:
            layout.complain(number, row, problems, error)
        else:
            yield task
    for column in sorted(absent):
        problems.add(0, column, "missing column", "the mapping names it, but no row has it")
    if problems:
        raise UnreadableTasks(source, problems)
    if number and not graded:
        raise ValueError("There is no column `<model>:success` or `<model>:score`, and no mapping was given.")


class _Layout:
    """How to read the rows with these columns."""

    def __init__(self, mapping: TableMapping, columns: Columns, prices: Prices) -> None:
        self._places = {name: place for place, name in enumerate(columns)}
        self._parts: list[tuple[str, Figure]] = []  # by column, to report which one cannot be read
        self._constants = {
            name: column.constant for name, column in mapping.request.items() if not column.name
        }
        self._request = self._inputs(mapping.request)
        self._fixed = {
            name: column.constant for name, column in mapping.attributes.items() if not column.name
        }
        self._attributes = self._inputs(mapping.attributes)
        self._models = [
            (model, self._answer(one, mapping.usd, prices.get(model)))
            for model, one in mapping.models.items()
        ]
        self.graded = any(one.success or one.score for one in mapping.models.values())

    def task(self, row: Values) -> Task:
        """Return the row as a task. Raises `ValueError` or `TypeError` if a value cannot be read."""
        request = self._constants.copy()
        for name, figure in self._request:
            if (value := figure(row)) is not None:
                request[name] = value
        attributes = self._fixed.copy()
        for name, figure in self._attributes:
            if (value := figure(row)) is not None:
                attributes[name] = value
        if attributes:
            request["attributes"] = attributes
        answers = {}
        for model, read in self._models:
            if (answer := read(row)) is not None:
                answers[model] = answer
        return Task(request, answers)

    def complain(self, number: int, row: Values, problems: Problems, error: Exception) -> None:
        """Record the unreadable values of a row that failed with `error`."""
        found: dict[str, str] = {}
        for column, figure in self._parts:
            try:
                figure(row)
            except (ValueError, TypeError) as why:
                found.setdefault(column, str(why))
        for column, message in (found or {"": str(error)}).items():
            problems.add(number, column, f"value of {column}", message)

    def _figure(self, column: str, read: Callable[[Any], Any]) -> Figure | None:
        """Return a reader of the column; None if these rows lack it, because JSON leaves out unknown values."""
        if (place := self._places.get(column)) is None:
            return None

        def figure(row: Values) -> Any:
            return read(row[place])

        self._parts.append((column, figure))
        return figure

    def _inputs(self, columns: Mapping[str, Column]) -> list[tuple[str, Figure]]:
        found = ((name, self._tokens(column) if column.characters else self._figure(column.name, values.plain))
                 for name, column in columns.items() if column.name)  # fmt: skip
        return [(name, figure) for name, figure in found if figure is not None]

    def _tokens(self, column: Column | None) -> Figure | None:
        """Return a reader of tokens; the column may hold characters instead."""
        if column is None:
            return None
        if not column.name:
            constant = column.constant
            return lambda row: constant
        return self._figure(column.name, _tokens_of_characters if column.characters else _tokens)

    def _answer(
        self, columns: ModelColumns, usd: float, catalogue: Price | None
    ) -> Callable[[Values], Answer | None]:
        """Return a reader of the model's outcome, which returns None for a row without any."""
        success = self._figure(columns.success, values.yes_or_no) or _unknown
        score = self._figure(columns.score, values.number)
        cost = self._figure(columns.cost, partial(values.money, per_unit=usd)) or _unknown
        priced = self._priced(columns, catalogue)
        error = self._figure(columns.error, values.text) or _unknown
        confidence = self._figure(columns.confidence, values.share) or _unknown
        latency = (
            self._figure(columns.latency, partial(values.duration, per_unit=columns.latency_factor))
            or _unknown
        )
        success_from = columns.success_from

        def answer(row: Values) -> Answer | None:
            good, nusd, failed, quality = success(row), cost(row), error(row), None
            if score is not None and (quality := score(row)) is not None:
                good = quality >= success_from if good is None else good
                quality = min(1.0, max(0.0, quality))
            if nusd is None and priced is not None:
                nusd = priced(row)
            if failed is not None:
                good = False
            elif good is None and quality is None and nusd is None:
                return None
            return Answer(good, nusd, quality, confidence(row), latency(row), failed)

        return answer

    def _priced(self, columns: ModelColumns, catalogue: Price | None) -> Figure | None:
        """Return a reader of the tokens' cost in nano-USD; None without tokens or a price.

        Tokens of the answer that were not recorded are unknown, which only matters if they have a price.
        """
        price, given = columns.price or catalogue, self._tokens(columns.tokens_in)
        made = self._tokens(columns.tokens_out)
        if price is not None and made is None and price[1] == 0:
            made = _nothing
        if price is None or given is None or made is None:
            return None
        return partial(_cost, price, given, made)


def _named(mapping: TableMapping) -> set[str]:
    """Return all columns that the mapping names."""
    found = {column.name for column in (*mapping.request.values(), *mapping.attributes.values())}
    for model in mapping.models.values():
        found |= {model.success, model.score, model.cost, model.confidence, model.latency, model.error}
        found |= {column.name for column in (model.tokens_in, model.tokens_out) if column is not None}
    return found - {""}


def _unknown(row: Values) -> None:
    return None


def _nothing(row: Values) -> int:
    return 0


def _cost(price: Price, given: Figure, made: Figure, row: Values) -> int | None:
    inputs: float | None = given(row)
    outputs: float | None = made(row)
    if inputs is None or outputs is None:
        return None
    # Dollars per million tokens are 1,000 nano-USD per token.
    return round((inputs * price[0] + outputs * price[1]) * 1_000)


def _tokens(value: Any) -> int | float | None:
    found = values.number(value)
    if found is None:
        return None
    if found < 0:
        raise ValueError(f"{found:g} tokens; there must be 0 or more")
    return int(found) if found.is_integer() else found


def _tokens_of_characters(value: Any) -> int | None:
    found = _tokens(value)
    return None if found is None else math.ceil(found / CHARACTERS_A_TOKEN)
