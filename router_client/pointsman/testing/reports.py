"""Validate reports like the control plane: types, ranges, unknown fields, then contradictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from types import SimpleNamespace
from typing import Any

from pointsman.reporting import consistency, limits

__all__ = ["Member", "problems"]

Reader = Callable[[Any, str], Any]  # (value, path) → parsed value; raises _Wrong
Member = str  # `buckets`, `decided` or `cells`


class _Wrong(Exception):  # noqa: N818 - caught where it is raised
    """(path, sentence)"""


def problems(report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the problems in the entries of a batch: `{"list": "buckets", "index": 3, "field": …, "message": …}`."""
    for member, (read, rules) in _MEMBERS.items():
        for index, entry in enumerate(report.get(member) or ()):
            where = {"list": member, "index": index}
            try:
                found = rules(read(entry, ""), None)
            except _Wrong as wrong:
                found = [wrong.args]
            for field, message in found:
                yield {**where, "field": field, "message": message}


def _whole(highest: int, lowest: int = 0) -> Reader:
    def read(value: Any, path: str) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise _Wrong(path, f"a whole number from {lowest} to {highest}, not {value!r}")
        return value

    return read


def _real(value: Any, path: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _Wrong(path, f"a number, not {value!r}")
    if not 0 <= value <= limits.REAL:
        raise _Wrong(path, f"a number from 0 to {limits.REAL:g}, not {value!r}")
    return float(value)


def _text(longest: int) -> Reader:
    def read(value: Any, path: str) -> str:
        if not isinstance(value, str) or len(value) > longest:
            raise _Wrong(path, f"a text of at most {longest} characters")
        return value

    return read


def _one_of(*values: Any) -> Reader:
    def read(value: Any, path: str) -> Any:
        if value not in values or isinstance(value, bool):
            raise _Wrong(path, f"one of {', '.join(map(repr, values))}, not {value!r}")
        return value

    return read


def _moment(value: Any, path: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise _Wrong(path, f"a time of RFC 3339, not {value!r}") from None


def _or_null(reader: Reader) -> Reader:
    return lambda value, path: None if value is None else reader(value, path)


def _counts(key: Reader, value: Reader) -> Reader:
    def read(data: Any, path: str) -> dict[str, Any]:
        if not isinstance(data, dict):
            raise _Wrong(path, "an object")
        return {key(name, path): value(entry, path) for name, entry in data.items()}

    return read


def _record(required: Mapping[str, Reader], optional: Mapping[str, tuple[Reader, Any]]) -> Reader:
    """Return a reader of objects with these members. A missing member is read from its default."""
    members = {**required, **{name: reader for name, (reader, _) in optional.items()}}

    def read(data: Any, path: str) -> SimpleNamespace:
        if not isinstance(data, dict):
            raise _Wrong(path, "an object")
        for name in data:
            if name not in members:
                raise _Wrong(_join(path, name), "there is no such field")
        found = SimpleNamespace()
        for name, reader in members.items():
            if name in required and name not in data:
                raise _Wrong(_join(path, name), "this field is missing")
            value = data[name] if name in data else optional[name][1]
            setattr(found, name, reader(value, _join(path, name)))
        return found

    return read


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_count = _whole(limits.COUNT)
_money = _whole(limits.MONEY_NUSD)
_name = _text(limits.NAME)
_any_text = _text(limits.BYTES)
_tallies = _counts(_name, _count)
_by_number = _counts(_any_text, _count)

_moments = _record({}, {"n": (_count, 0), "sum": (_real, 0), "sum_sq": (_real, 0)})
_histogram = _record({}, {"scale": (_one_of(4), 4), "zero": (_count, 0), "counts": (_by_number, {})})
_sums = {"sum": _money, "sum_sq": _real, "sum_on_success": _money}
_capped = _or_null(_record(_sums, {}))
_graded = _or_null(_record({"n": _count, "successes": _count, **_sums}, {"capped": (_capped, None)}))
_costs = {
    "n": (_count, 0), "sum": (_money, 0), "sum_sq": (_real, 0), "sum_on_success": (_money, 0),
    "capped": (_capped, None), "graded": (_graded, None),
}  # fmt: skip
_grades = {"tasks": _count, "successes": _count, "failures": _count, "ungraded": _count}
_differing = _record(_grades, {"cost_nusd": (_record({}, _costs), {})})
_group = _record({"tasks": _count, "failures": _count}, {})
_shadow = _record(
    {},
    {
        **dict.fromkeys(("decisions", "agreed", "evaluation_errors"), (_count, 0)),
        **dict.fromkeys(("candidate_cost_nusd", "baseline_cost_nusd"), (_money, 0)),
        **dict.fromkeys(("candidate_priced", "baseline_priced", "candidate_whole"), (_or_null(_count), None)),
        "routes": (_counts(_text(limits.TEXT), _count), {}),
    },
)
_mirror = _record(
    {},
    {
        **dict.fromkeys(
            ("n", "both", "only_candidate", "only_baseline", "neither", "failed", "braked"), (_count, 0)
        ),
        **dict.fromkeys(("candidate_cost_nusd", "baseline_cost_nusd"), (_money, 0)),
    },
)
_place: dict[str, Reader] = {"minute": _moment, "workload": _name, "arm": _one_of("baseline", "candidate")}
_version = _whole(limits.VERSION, 1)
_in_rollout: dict[str, tuple[Reader, Any]] = {
    "rollout": (_or_null(_text(limits.ROLLOUT)), None),
    "stage": (_or_null(_whole(limits.STAGE)), None),
}
_bucket = _record(
    {**_place, "version": _version, **_grades},
    {
        **_in_rollout,
        "endpoint": (_text(limits.TEXT), ""),
        **dict.fromkeys(("rule", "model"), (_name, "")),
        **dict.fromkeys(("errors", "escalations", "fallbacks", "retries", "attempts"), (_count, 0)),
        **dict.fromkeys(("quality", "confidence"), (_moments, {})),
        "cost_nusd": (_record({}, {**_costs, "histogram": (_histogram, {})}), {}),
        "latency_ms": (_histogram, {}),
        "groups": (_counts(_any_text, _group), {}),
        **dict.fromkeys(("models", "errors_by_kind"), (_tallies, {})),
        "shadow": (_shadow, {}),
        "mirror": (_mirror, {}),
        "differing": (_or_null(_counts(_text(limits.PAIR), _differing)), None),
    },
)
_decided = _record(
    {**_place, "version": _version, "tasks": _count}, {**_in_rollout, "differing": (_or_null(_count), None)}
)
_cells = _record(
    {**_place, "version": _version, "tasks": _by_number}, {**_in_rollout, "failures": (_by_number, {})}
)

_MEMBERS: dict[Member, tuple[Reader, Callable[[Any, datetime | None], consistency.Found]]] = {
    "buckets": (_bucket, consistency.contradictions),
    "decided": (_decided, consistency.decided_contradictions),
    "cells": (_cells, consistency.cells_contradictions),
}
