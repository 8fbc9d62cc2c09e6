"""The task log of Pointsman's own routers: a line of figures a task, with the probability by which its arm was drawn.

A log outlives crashes: a line that was half written, or is there twice, is passed over and counted, and the file is
read on. Only a file without one line of a task log is refused.
"""

import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from rollout_app.backtest.readers.problems import Problems, UnreadableTasks
from rollout_app.backtest.tasks import Answer, Task

MAX_LINE = 1024 * 1024  # bytes; the client's are of one or two KiB
ROTATED = 1_000  # older files that are looked for


class _Tried(msgspec.Struct):
    model: str
    cost_nusd: int | None = None
    latency_ms: float | None = None
    error: str | None = None
    confidence: float | None = None


class _Other(msgspec.Struct):
    version: int
    model: str


class _Mirror(msgspec.Struct):
    model: str
    success: bool
    cost_nusd: int | None = None


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
    cost_nusd: int | None = None
    latency_ms: float | None = None
    error: str | None = None


class _Word(msgspec.Struct):
    task_log: Literal[1]
    feedback: str
    kind: str
    success: bool | None = None
    score: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedTask:
    """One task of a router's log.

    task                what a backtest reads of any record
    propensity          the probability by which its arm was drawn; 1: nothing was drawn
    model               the catalogue's name of the first choice
    other               (version, first choice) of the arm that did not serve; None: there was none
    differing           "" where both arms act alike on this task; None: not known
    success, cost_nusd, latency_ms   of the whole task; None: not known
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
    """What was passed over: `broken` lines, tasks and words that came `doubled`, words of `strangers`: no task here."""

    lines: int = 0
    tasks: int = 0
    broken: int = 0
    doubled: int = 0
    strangers: int = 0

    def told(self) -> list[str]:
        """In words; empty where nothing was."""
        each = (
            (self.broken, "half written or no line of a task log"),
            (self.doubled, "there a second time"),
            (self.strangers, "a later word on a task that is not in these files"),
        )
        return [f"{count:,} lines passed over: {why}." for count, why in each if count]


@dataclass(frozen=True, slots=True)
class TaskLogFiles:
    """The files of a log, oldest first, and which word grades.

    grade         a kind of feedback, such as `human_review`; empty: what the router recorded
    success_from  a score from here on is a success, where a word says no more
    """

    paths: tuple[Path, ...]
    grade: str = ""
    success_from: float = 0.5
    read: ReadLines = field(default_factory=ReadLines)

    @classmethod
    def of(cls, path: str | Path, grade: str = "", success_from: float = 0.5) -> "TaskLogFiles":
        """The file, with the older ones that its router has rotated away."""
        newest = Path(path)
        older = [newest.with_name(f"{newest.stem}.{age}{newest.suffix}") for age in range(1, ROTATED)]
        kept: list[Path] = []
        for file in older:
            if not file.is_file():
                break
            kept.append(file)
        return cls((*reversed(kept), newest), grade, success_from)

    def tasks(self) -> Iterator[LoggedTask]:
        """Each task once. Raises OSError, and UnreadableTasks (at the end) for what is no task log at all."""
        self.read.__init__()  # type: ignore[misc]  # what is counted, is counted of this reading
        grades = self._grades() if self.grade else {}
        seen: set[int] = set()
        for line in self._lines():
            if not isinstance(line, _Line):
                continue
            key = hash((line.decision, line.at))
            if key in seen:
                self.read.doubled += 1
                continue
            seen.add(key)
            self.read.tasks += 1
            yield _logged(line, self._success(line, grades))
        self.read.strangers = len(grades)
        if not self.read.tasks and self.read.broken:
            raise _no_task_log(self.paths[-1])

    def _success(self, line: _Line, grades: dict[str, bool | None]) -> bool | None:
        if not self.grade:
            return line.success
        said = grades.pop(line.decision, None)
        return False if line.error is not None else said

    def _grades(self) -> dict[str, bool | None]:
        """By decision. The first word of a kind counts, as in the control plane."""
        grades: dict[str, bool | None] = {}
        doubled = 0
        for line in self._lines():
            if isinstance(line, _Word) and line.kind == self.grade:
                if line.feedback in grades:
                    doubled += 1
                    continue
                scored = None if line.score is None else line.score >= self.success_from
                grades[line.feedback] = scored if line.success is None else line.success
        self.read.__init__()  # type: ignore[misc]
        self.read.doubled = doubled
        return grades

    def _lines(self) -> Iterator[_Line | _Word]:
        for path in self.paths:
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
                while content := file.readline(MAX_LINE):
                    if content.isspace():
                        continue
                    self.read.lines += 1
                    line = _decoded(content)
                    if line is None:
                        self.read.broken += 1
                    else:
                        yield line


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_word = msgspec.json.Decoder(_Word).decode


def _decoded(content: bytes) -> _Line | _Word | None:
    try:
        return _decode_line(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return _decode_word(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


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
    """By model. Only the answer that was used is graded; a retry's cost and time come on top."""
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


def _no_task_log(path: Path) -> UnreadableTasks:
    problems = Problems()
    problems.add(0, "", "format", "not one of its lines is one of a task log (format 1)")
    return UnreadableTasks(path.name, problems)
