"""A gateway's log as tasks: one task is one trace, whatever retries and fallbacks it took.

    rows → one format's `read_call` → Call → joined by trace on disk → Task

Calls may come in any order. They wait in a temporary SQLite file, so a log of ten gigabytes costs ten gigabytes of disk
and no memory. Prompts and answers are never kept.
"""

import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.readers.rows import Row
from rollout_app.backtest.tasks import Answer, Task


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a model, as a gateway logged it.

    trace       joins the calls of one request
    at          when it began, Unix seconds (or any number that orders the calls of a trace)
    success     a grade, if the log holds one; None: ungraded
    error       the kind of failure; None: it answered
    request     the `request.*` inputs that the log holds
    """

    trace: str
    at: float
    model: str
    cost_nusd: int | None = None
    latency_ms: float | None = None
    success: bool | None = None
    quality: float | None = None
    error: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)


ReadCall = Callable[[Row], Call | None]
Grades = Mapping[str, tuple[bool | None, float | None]]


def read_log(
    rows: Iterable[tuple[int, Row]], source: str, read_call: ReadCall, grades: Grades | None = None
) -> Iterator[Task]:
    """The log's traces as tasks, in the order of their names. Raises `UnreadableTasks` before the first task.

    read_call  a row as a call; None for a row that is no task's call; raises `ValueError` or `KeyError`
    grades     (success, score) by trace, where they stand in another file
    """
    problems = Problems()
    with tempfile.TemporaryDirectory() as home:
        kept = sqlite3.connect(Path(home) / "calls.sqlite3")
        try:
            kept.execute("PRAGMA synchronous = OFF")
            kept.execute("CREATE TABLE call (trace TEXT, at REAL, body BLOB)")
            kept.executemany("INSERT INTO call VALUES (?, ?, ?)", _entries(rows, read_call, problems))
            if problems:
                raise UnreadableTasks(source, problems)
            kept.execute("CREATE INDEX by_trace ON call (trace, at)")
            yield from _traces(kept, grades or {})
        finally:
            kept.close()


def _entries(
    rows: Iterable[tuple[int, Row]], read_call: ReadCall, problems: Problems
) -> Iterator[tuple[str, float, bytes]]:
    encode = msgspec.msgpack.encode
    for number, row in rows:
        try:
            call = read_call(row)
        except KeyError as error:
            problems.add(number, str(error.args[0]), "missing field", f"there is no {error.args[0]!r}")
            continue
        except (ValueError, TypeError, AttributeError) as error:
            problems.add(number, "", "value", str(error))
            continue
        if call is not None:
            body = (
                call.model,
                call.cost_nusd,
                call.latency_ms,
                call.success,
                call.quality,
                call.error,
                dict(call.request),
            )
            yield call.trace, call.at, encode(body)


def _traces(kept: sqlite3.Connection, grades: Grades) -> Iterator[Task]:
    trace: str | None = None
    calls: list[tuple[Any, ...]] = []
    for name, body in kept.execute("SELECT trace, body FROM call ORDER BY trace, at, rowid"):
        if name != trace and calls:
            yield _task(calls, grades.get(trace or "", (None, None)))
            calls = []
        trace = name
        calls.append(msgspec.msgpack.decode(body))
    if calls:
        yield _task(calls, grades.get(trace or "", (None, None)))


def _task(calls: list[tuple[Any, ...]], grade: tuple[bool | None, float | None]) -> Task:
    """The calls of one trace, first to last. The last model's answer is the one that was used, and the one graded."""
    answers: dict[str, Answer] = {}
    for model, cost, latency, success, quality, error, _ in calls:
        before = answers.get(model)
        if before is not None:  # a retry: its cost and time come on top
            cost = None if cost is None or before.cost_nusd is None else cost + before.cost_nusd
            latency = None if latency is None or before.latency_ms is None else latency + before.latency_ms
        answers[model] = Answer(False if error else success, cost, quality, None, latency, error)
    last = calls[-1][0]
    used = answers[last]
    if used.error is None and grade != (None, None):
        answers[last] = Answer(grade[0], used.cost_nusd, grade[1], None, used.latency_ms, None)
    return Task(calls[0][6], answers)
