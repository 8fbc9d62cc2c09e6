"""A gateway's log as tasks: one trace is one task, including its retries and fallbacks.

    rows → one format's `read_call` → Call → joined by trace on disk → Task

Calls may come in any order and more than once: an equal row with the same start is the same call. They are kept in a
temporary SQLite file, so a log of ten gigabytes uses ten gigabytes of disk and little memory. Prompts and answers are
never stored.
"""

import errno
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
    at          its start in Unix seconds (or any number that orders the calls of a trace)
    success     a grade, if the log has one; None: ungraded
    error       the kind of failure; None: it answered
    request     the `request.*` inputs in the log
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


MOST_CALLS = 10_000  # per trace
ReadCall = Callable[[Row], Call | None]
Grades = Mapping[str, tuple[bool | None, float | None]]


def read_log(
    rows: Iterable[tuple[int, Row]],
    source: str,
    problems: Problems,
    read_call: ReadCall,
    grades: Grades | None = None,
) -> Iterator[Task]:
    """Yield the log's traces as tasks, ordered by name. Raises `UnreadableTasks` before the first task, and `OSError`
    if the temporary file cannot be written.

    problems   those of the rows that `rows` left out
    read_call  converts a row to a call; None for a row that is not a task's call; raises `ValueError` or `KeyError`
    grades     (success, score) by trace, if they are in another file
    """
    with tempfile.TemporaryDirectory() as home:
        kept = sqlite3.connect(Path(home) / "calls.sqlite3")
        try:
            kept.execute("PRAGMA synchronous = OFF")
            kept.execute("CREATE TABLE call (trace TEXT, at REAL, body BLOB)")
            entries = _Entries(rows, read_call, problems)
            kept.executemany("INSERT INTO call VALUES (?, ?, ?)", entries)
            if problems:
                raise UnreadableTasks(source, problems)
            if entries.read and not entries.calls:
                raise ValueError(
                    f"{source} has {entries.read:,} rows, but none is a call that answers a task. Is it the kind of "
                    "log that you named?"
                )
            kept.execute("CREATE INDEX by_trace ON call (trace, at)")
            yield from _traces(kept, grades or {})
        except sqlite3.OperationalError as error:  # such as a full disk
            raise OSError(errno.EIO, f"the log's calls could not be kept: {error}") from None
        finally:
            kept.close()


class _Entries:
    """The rows that are calls, in their stored form: (trace, start, the rest packed)."""

    def __init__(self, rows: Iterable[tuple[int, Row]], read_call: ReadCall, problems: Problems) -> None:
        self._rows, self._read_call, self._problems = rows, read_call, problems
        self.read = self.calls = 0

    def __iter__(self) -> Iterator[tuple[str, float, bytes]]:
        encode = msgspec.msgpack.encode
        for number, row in self._rows:
            self.read += 1
            try:
                call = self._read_call(row)
                if call is not None:
                    self.calls += 1
                    yield call.trace, call.at, encode(_body(call))
            except KeyError as error:
                name = str(error.args[0])
                self._problems.add(number, name, "missing field", f"there is no {name!r}")
            except (ValueError, TypeError, AttributeError, OverflowError) as error:
                self._problems.add(number, "", "value", str(error))


def _body(call: Call) -> tuple[Any, ...]:
    figures = (call.cost_nusd, call.latency_ms, call.success, call.quality, call.error)
    return call.model, *figures, dict(call.request)


def _traces(kept: sqlite3.Connection, grades: Grades) -> Iterator[Task]:
    trace: str | None = None
    calls: dict[tuple[Any, ...], bytes] = {}
    for at, (name, start, body) in enumerate(
        kept.execute("SELECT trace, at, body FROM call ORDER BY trace, at, rowid")
    ):
        if name != trace and calls:
            yield _task(calls.values(), grades.get(trace or "", (None, None)))
            calls = {}
        trace = name
        # A start of 0 means that it is unknown; a repeated row then counts as another call.
        calls[(start, body) if start else (at,)] = body
        if len(calls) > MOST_CALLS:
            raise ValueError(
                f"The trace {name[:80]!r} has more than {MOST_CALLS:,} calls. A trace must be one task, so the calls "
                "are joined by the wrong field."
            )
    if calls:
        yield _task(calls.values(), grades.get(trace or "", (None, None)))


def _task(bodies: Iterable[bytes], grade: tuple[bool | None, float | None]) -> Task:
    """Join the calls of one trace, in order. The last model's answer is the one that was used and graded."""
    answers: dict[str, Answer] = {}
    calls: list[tuple[Any, ...]] = [msgspec.msgpack.decode(body) for body in bodies]
    for model, cost, latency, success, quality, error, _ in calls:
        before = answers.get(model)
        if before is not None:  # a retry: add its cost and time
            cost = None if cost is None or before.cost_nusd is None else cost + before.cost_nusd
            latency = None if latency is None or before.latency_ms is None else latency + before.latency_ms
        answers[model] = Answer(False if error else success, cost, quality, None, latency, error)
    last = calls[-1][0]
    used = answers[last]
    if used.error is None and grade != (None, None):
        answers[last] = Answer(grade[0], used.cost_nusd, grade[1], None, used.latency_ms, None)
    return Task(calls[0][6], answers)
