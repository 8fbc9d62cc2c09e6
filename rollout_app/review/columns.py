"""The columns of sums: how each is computed from the outcomes, and how a row becomes `OutcomeSums`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db.models import Aggregate, BigIntegerField, Case, F, FloatField, Q, Sum, When
from django.db.models.fields.json import KeyTextTransform
from django.db.models.functions import Cast

from rollout_app.engine.diagnosis import OutcomeSums
from rollout_app.review.models import SummedOutcomes

FIELDS = {field.name: field for field in SummedOutcomes._meta.local_fields}
COLUMNS = tuple(FIELDS)
_NAMES = {  # column: field of `OutcomeSums`, where the names differ
    "cost_sum": "cost", "cost_sum_sq": "cost_sq", "graded_n": "both_n", "graded_successes": "both_successes",
    "graded_sum": "both_cost", "graded_sum_sq": "both_cost_sq", "graded_on_success": "both_cost_on_success",
    "quality_sum": "quality", "confidence_sum": "confidence",
}  # fmt: skip
# Fields of `OutcomeSums`, in the order of COLUMNS.
FIGURES = tuple(_NAMES.get(column, column) for column in COLUMNS)

# Rows stored before `graded_*` existed have the number of tasks with a cost and with a grade, but not with
# both. They count for cost per success only if that number follows from the others.
_STORED = Q(graded_n__gt=0)
_ALL_GRADED = Q(ungraded=0)
_BOTH_KNOWN = _ALL_GRADED & (Q(cost_n=F("tasks")) | Q(failures=0) | Q(successes=0))


def _graded(stored: str, *derived: When) -> Sum:
    """Sum the stored column or a derived value. No zero default: PostgreSQL and Django need one type in all
    branches.
    """
    return Sum(Case(When(_STORED, then=F(stored)), *derived))


_FROM_OUTCOMES: Mapping[str, Aggregate] = {
    "graded_n": _graded("graded_n", When(_BOTH_KNOWN, then=F("cost_n"))),
    # If all tasks have a cost, the successes are the bucket's; if none failed, every task with a cost is a
    # success.
    "graded_successes": _graded(
        "graded_successes",
        When(_ALL_GRADED & Q(cost_n=F("tasks")), then=F("successes")),
        When(_ALL_GRADED & Q(failures=0), then=F("cost_n")),
    ),
    "graded_sum": _graded("graded_sum", When(_BOTH_KNOWN, then=F("cost_sum"))),
    "graded_sum_sq": _graded("graded_sum_sq", When(_BOTH_KNOWN, then=F("cost_sum_sq"))),
    "graded_on_success": _graded("graded_on_success", When(_BOTH_KNOWN, then=F("cost_on_success"))),
    **{
        column: Sum(Cast(KeyTextTransform(name, "mirror"), BigIntegerField()), filter=~Q(mirror={}))
        for column, name in (("mirrored", "n"), ("mirror_cost", "candidate_cost_nusd"))
    },
}


def from_outcomes() -> dict[str, Aggregate]:
    """Return `{alias: aggregate}` over `OutcomeBucket`, in the order of `COLUMNS`."""
    return {f"{column}_": _FROM_OUTCOMES.get(column, Sum(column)) for column in COLUMNS}


def graded(column: str) -> Aggregate:
    """Return the aggregate of one of the columns `graded_…` over stored minutes."""
    return _FROM_OUTCOMES[column]


def from_rows() -> dict[str, Aggregate]:
    """Return the same over rows of sums."""
    return {f"{column}_": Sum(column) for column in COLUMNS}


def as_row(values: Iterable[Any]) -> dict[str, Any]:
    """Return aggregated values by column. PostgreSQL sums integers as decimals, and no rows as null."""
    return {
        name: float(value or 0) if isinstance(FIELDS[name], FloatField) else int(value or 0)
        for name, value in zip(COLUMNS, values, strict=True)
    }


_COLUMN_OF = {figure: column for column, figure in zip(COLUMNS, FIGURES, strict=True)}
_FIGURE_OF = dict(zip(COLUMNS, FIGURES, strict=True))
IN_ORDER = tuple(_COLUMN_OF[figure] for figure in OutcomeSums._fields)  # so that `OutcomeSums(*row)` works
_IS_FLOAT = {name: isinstance(field, FloatField) for name, field in FIELDS.items()}
_PLACES = tuple((COLUMNS.index(name), _IS_FLOAT[name]) for name in IN_ORDER)
# What `engine.diagnosis.compare_arms` reads. A long rollout has thousands of rows.
COMPARED = (
    "tasks", "successes", "failures", "retries", "cost_n", "cost_sum", "cost_sum_sq", "graded_n", "graded_successes",
    "graded_sum", "graded_sum_sq", "graded_on_success",
)  # fmt: skip
_COMPARED = tuple((_FIGURE_OF[name], _IS_FLOAT[name]) for name in COMPARED)


def as_sums(values: Sequence[Any]) -> OutcomeSums:
    """Return aggregated values, in the order of `COLUMNS`, as figures."""
    figures: list[Any] = [
        float(values[at] or 0) if is_float else int(values[at] or 0) for at, is_float in _PLACES
    ]
    return OutcomeSums(*figures)


def as_compared(values: Iterable[Any]) -> OutcomeSums:
    """Return the same for the columns of `COMPARED`; the other figures are 0."""
    figures: dict[str, Any] = {
        name: float(value or 0) if is_float else int(value or 0)
        for (name, is_float), value in zip(_COMPARED, values, strict=True)
    }
    return OutcomeSums(**figures)
