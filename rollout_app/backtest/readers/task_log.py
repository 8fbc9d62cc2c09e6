"""Read the task log of Pointsman's own routers: one line per task, with the probability of its arm.

A router may crash while it writes, so half-written and repeated lines are skipped, counted and reported by row and
column. A file is refused only if it contains no valid line, or more than `MOST_TASKS` tasks.
"""

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

import msgspec
from msgspec import Meta

from pointsman.plurals import counted
from rollout_app.backtest.readers.compact import CompactMap
from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.tasks import Answer, Task

MAX_LINE = 1024 * 1024  # bytes; the client's lines have one or two KiB
MOST_TASKS = 10_000_000  # finding repeated lines takes 15 to 36 bytes of memory for each
ROTATED = 1_000  # maximum number of rotated files
_Cost = Annotated[int, Meta(ge=0, le=10**15)] | None
_Milliseconds = Annotated[float, Meta(ge=0)] | None
_TORN = b"\0"
_GRADES = {1: False, 2: True, 3: None}  # as stored; 0: no feedback


class _Tried(msgspec.Struct):
    model: str
    cost_nusd: _Cost = None
    latency_ms: _Milliseconds = None
    error: str | None = None
    confidence: float | None = None


class _Other(msgspec.Struct):
    version: int
    model: str


class _Mirror(msgspec.Struct):
    model: str
    success: bool
    cost_nusd: _Cost = None


class _Line(msgspec.Struct):
    task_log: Literal[1]
    at: float
    workload: str
    decision: str
    unit: str
    arm: Literal["baseline", "candidate"]
    version: int
    propensity: float
    rule: str
    model: str
    attempts: list[_Tried]
    answered: str
    request: dict[str, Any] = {}
    differing: str | None = None
    other: _Other | None = None
    mirror: _Mirror | None = None
    withheld: list[str] = []
    success: bool | None = None
    quality: float | None = None
    cost_nusd: _Cost = None
    latency_ms: _Milliseconds = None
    error: str | None = None


class _FeedbackLine(msgspec.Struct):
    task_log: Literal[1]
    feedback: str
    kind: str
    success: bool | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """One task of a router's log.

    task                the part that any backtest reads
    propensity          the probability of its arm; 1: nothing was drawn
    model               the catalogue name of the first choice
    other               (version, first choice) of the arm that did not serve; None: there was none
    differing           "" if both arms act alike on this task; None: unknown
    success, cost_nusd, latency_ms   of the whole task; None: unknown
    """

    task: Task
    at: float
    workload: str
    unit: str
    version: int
    propensity: float
    rule: str
    model: str
    other: tuple[int, str] | None
    differing: str | None
    success: bool | None
    cost_nusd: int | None
    latency_ms: float | None


@dataclass(slots=True)
class ReadLines:
    """Counts of skipped lines: repeated tasks and grades (`repeated`), grades without a task (`unmatched`), and
    `broken` lines; `problems` holds the first of these by row and column.
    """

    lines: int = 0
    tasks: int = 0
    broken: int = 0
    repeated: int = 0
    unmatched: int = 0
    problems: Problems = field(default_factory=Problems)

    def sentences(self) -> list[str]:
        """Describe the counts as sentences; empty if nothing was skipped."""
        each = (
            (self.broken, "incomplete, or not from a task log"),
            (self.repeated, "repeated"),
            (self.unmatched, "feedback on tasks that these files do not contain"),
        )
        counts = [f"{counted(count, 'line')} skipped: {why}." for count, why in each if count]
        return counts + self.problems.lines()


@dataclass(frozen=True, slots=True)
class TaskLogFiles:
    """The files of a log, oldest first, and which feedback grades.

    grade         a kind of feedback, such as `human_review`; empty: the router's own grade
    success_from  the lowest score that is a success, for feedback with a score only
    """

    paths: tuple[Path, ...]
    grade: str = ""
    success_from: float = 0.5
    read: ReadLines = field(default_factory=ReadLines)

    @classmethod
    def of(cls, path: str | Path, grade: str = "", success_from: float = 0.5) -> "TaskLogFiles":
        """Return the file together with the older ones that its router has rotated."""
        newest = Path(path)
        older = [newest.with_name(f"{newest.stem}.{age}{newest.suffix}") for age in range(1, ROTATED)]
        kept: list[Path] = []
        for file in older:
            if not file.is_file():
                break
            kept.append(file)
        return cls((*reversed(kept), newest), grade, success_from)

    def tasks(self) -> Iterator[LoggedTask]:
        """Yield each task once. Raises OSError, and UnreadableTasks (at the end) for a file that is not a task log."""
        self.read.__init__()  # type: ignore[misc]  # counts are per reading
        grades = self._grades() if self.grade else CompactMap()
        seen = CompactMap()
        for line in self._lines():
            if not isinstance(line, _Line):
                continue
            if not seen.add((line.decision, line.at)):
                self.read.repeated += 1
                continue
            if len(seen) > MOST_TASKS:
                raise _refused(
                    self.paths[-1], f"more than {MOST_TASKS:,} tasks; read the files of one rollout at a time"
                )
            self.read.tasks += 1
            yield _logged(line, self._success(line, grades))
        self.read.unmatched = grades.left()
        if not self.read.tasks and self.read.broken:
            why = "the file contains no valid task log line (format 1)"
            raise _refused(self.paths[-1], why, self.read.problems)

    def _success(self, line: _Line, grades: CompactMap) -> bool | None:
        if not self.grade:
            return line.success
        said = _GRADES.get(grades.take(line.decision))
        return False if line.error is not None else said

    def _grades(self) -> CompactMap:
        """Return grades by decision. The first feedback of a kind counts, as in the control plane."""
        grades = CompactMap()
        repeated = 0
        for line in self._lines():
            if isinstance(line, _FeedbackLine) and line.kind == self.grade:
                scored = None if line.score is None else line.score >= self.success_from
                success = scored if line.success is None else line.success
                repeated += not grades.add(line.feedback, 3 if success is None else 1 + success)
                if len(grades) > MOST_TASKS:
                    raise _refused(self.paths[-1], f"feedback on more than {MOST_TASKS:,} tasks")
        self.read.__init__()  # type: ignore[misc]
        self.read.repeated = repeated
        return grades

    def _lines(self) -> Iterator[_Line | _FeedbackLine]:
        for path in self.paths:
            where = f"{path.name}: " if len(self.paths) > 1 else ""
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
                for number, content in _numbered(file):
                    if content.isspace():
                        continue
                    self.read.lines += 1
                    line = _decoded(content)
                    if isinstance(line, _Broken):
                        self.read.broken += 1
                        self.read.problems.add(number, line.column, line.kind, where + line.message)
                    else:
                        yield line


@dataclass(frozen=True, slots=True)
class _Broken:
    """Why a line cannot be used, and at which field or byte."""

    column: str
    kind: str
    message: str


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_feedback = msgspec.json.Decoder(_FeedbackLine).decode


def _numbered(file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, bytes]]:
    """Yield lines with their numbers. Cut lines at `MAX_LINE` bytes; end a torn .gz with `_TORN`."""
    number = 0
    try:
        while content := file.readline(MAX_LINE):
            number += 1
            yield number, content
            while len(content) == MAX_LINE and not content.endswith(b"\n"):
                content = file.readline(MAX_LINE)
    except (EOFError, zlib.error, gzip.BadGzipFile):  # the last is an OSError: a wrong checksum, or no gzip
        yield number + 1, _TORN


def _decoded(content: bytes) -> _Line | _FeedbackLine | _Broken:
    try:
        return _decode_line(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        found = error
    try:
        return _decode_feedback(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _broken(content, error if b'"feedback"' in content else found)


def _broken(content: bytes, error: Exception) -> _Broken:
    """Return the reason with the field, or with the byte (from 1) at which the line stops being JSON."""
    if content is _TORN:
        return _Broken("", "incomplete", "the compressed file ends early or is damaged")
    if len(content) == MAX_LINE and not content.endswith(b"\n"):
        return _Broken("", "too long", f"longer than {MAX_LINE:,} bytes")
    if isinstance(error, UnicodeDecodeError):
        return _Broken("", "not JSON", "not UTF-8")
    message, _, path = str(error).partition(" - at `$")
    if isinstance(error, msgspec.ValidationError):
        named = re.search(r"field `(\w+)`", message)
        return _Broken(path.strip(".`") or (named[1] if named else ""), "not from a task log", message)
    if byte := re.search(r" \(byte (\d+)\)", message):
        return _Broken(str(int(byte[1]) + 1), "not JSON", message.replace(byte[0], ""))
    return _Broken(str(len(content.rstrip()) + 1), "incomplete", message)


def _logged(line: _Line, success: bool | None) -> LoggedTask:
    return LoggedTask(
        task=Task(line.request, _answers(line, success)),
        at=line.at,
        workload=line.workload,
        unit=line.unit,
        version=line.version,
        propensity=line.propensity,
        rule=line.rule,
        model=line.model,
        other=None if line.other is None else (line.other.version, line.other.model),
        differing=line.differing,
        success=success,
        cost_nusd=line.cost_nusd,
        latency_ms=line.latency_ms,
    )


def _answers(line: _Line, success: bool | None) -> Mapping[str, Answer]:
    """Return the answers by model. Only the answer that was used is graded; a retry adds its cost and time."""
    answers: dict[str, Answer] = {}
    for tried in line.attempts:
        cost, latency, before = tried.cost_nusd, tried.latency_ms, answers.get(tried.model)
        if before is not None:
            cost = None if cost is None or before.cost_nusd is None else cost + before.cost_nusd
            latency = None if latency is None or before.latency_ms is None else latency + before.latency_ms
        graded = success if tried.model == line.answered and tried.error is None else None
        answers[tried.model] = Answer(
            success=False if tried.error is not None else graded,
            cost_nusd=cost,
            quality=line.quality if tried.model == line.answered else None,
            confidence=tried.confidence,
            latency_ms=latency,
            error=tried.error,
        )
    mirror = line.mirror
    if mirror is not None and mirror.model not in answers:
        answers[mirror.model] = Answer(mirror.success, mirror.cost_nusd)
    return answers


def _refused(path: Path, why: str, others: Problems | None = None) -> UnreadableTasks:
    problems = Problems()
    problems.add(0, "", "format", why)
    if others is not None:
        problems.merge(others)
    return UnreadableTasks(path.name, problems)
