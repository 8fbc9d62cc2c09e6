"""SQL of many small reads, united in one statement.

Django's query compiler takes 2 ms for one of these with its twenty sums, and a page with a few rollouts needs fifty.
Only our own names and whole numbers are formatted into the text.
"""

from collections.abc import Iterator, Sequence
from datetime import date, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Model

from controlplane.core.bulk import chunks, flat, stored
from rollout_app.models import OutcomeBucket
from rollout_app.review import columns

_UNITED = 400  # SQLite unites at most 500


class Statement(NamedTuple):
    """A SELECT and the values of its placeholders."""

    text: str
    values: Sequence[Any]


def united(statements: Sequence[Statement]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of statements with the same columns, in one query for up to 400 of them."""
    for some in chunks(statements, _UNITED):
        with connection.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(each.text for each in some), flat(each.values for each in some))
            yield from cursor.fetchall()


def as_stored(value: date | datetime) -> Any:
    """Convert a time or a day to the database driver's representation."""
    return stored(value) if isinstance(value, datetime) else connection.ops.adapt_datefield_value(value)


@lru_cache
def sums_of(model: type[Model], names: Sequence[str] = columns.COLUMNS) -> Statement:
    """Return the aggregates of a source as SQL, in the order of `names`."""
    aggregates = columns.from_outcomes() if model is OutcomeBucket else columns.from_rows()
    rows = model._default_manager.order_by().values_list("arm")
    text, values = rows.annotate(
        **{f"{name}_": aggregates[f"{name}_"] for name in names}
    ).query.sql_with_params()
    return Statement(text[text.index(", ") + 2 : text.index(" FROM ")], values)


def slot(column: str, seconds: int) -> str:
    """Return the number of the interval of so many seconds that contains a time."""
    if connection.vendor == "sqlite":
        return f"CAST(strftime('%%s', {column}) AS INTEGER) / {seconds}"
    return f"CAST(FLOOR(EXTRACT(EPOCH FROM {column}) / {seconds}) AS BIGINT)"
