"""Open recorded tasks from any supported source as a stream."""

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pointsman.errors import PolicyInvalid
from pointsman.policy import parse
from rollout_app.backtest.readers import formats
from rollout_app.backtest.readers.calls import Grades, read_log
from rollout_app.backtest.readers.mapping import Prices, TableMapping, read_mapping
from rollout_app.backtest.readers.problems import Problems
from rollout_app.backtest.readers.rows import open_records, open_rows
from rollout_app.backtest.readers.table import read_table
from rollout_app.backtest.readers.task_log import TaskLogFiles
from rollout_app.backtest.tasks import Task

LOGS = ("litellm", "langfuse", "helicone", "opentelemetry", "pointsman")


@dataclass(frozen=True, slots=True)
class Source:
    """Where recorded tasks are, and how to read them.

    path          a file
    log           one of `LOGS`; empty: a table with one task per row and the outcome of every model
    mapping       for a table: a YAML file that maps its columns; empty: by its own column names
    latency_unit  for Langfuse: `ms` or `s`; there is no default, because files do not say
    grade         for a log: where the grade is (LiteLLM: a dotted path; Langfuse and Helicone: a score's name;
                  a router's task log: a kind of feedback)
    grades        for Langfuse: the file of scores
    success_from  the lowest score that is a success
    prices        dollars per million tokens (input, output) by catalogue model, for costs that are not in the file
    most_mapped   how many models and inputs a mapping may name, each of which takes time in each row; 0: any number
    """

    path: str
    log: str = ""
    mapping: str = ""
    latency_unit: str = ""
    grade: str = ""
    grades: str = ""
    success_from: float = 0.5
    prices: Prices = field(default_factory=dict)
    most_mapped: int = 0


def add_arguments(parser: ArgumentParser) -> None:
    """Add the options for reading a file of tasks, shared by all commands that read one."""
    parser.add_argument("--mapping", default="", help="for a table: a YAML file that maps its columns")
    parser.add_argument("--log", default="", choices=["", *LOGS], help="the kind of log")
    parser.add_argument(
        "--latency-unit", default="", choices=["", "ms", "s"], help="unit of Langfuse's latency"
    )
    parser.add_argument("--grade", default="", help="for a log: where the grade is, or the score's name")
    parser.add_argument("--grades", default="", help="for Langfuse: the file of scores")
    parser.add_argument("--success-from", type=float, default=0.5, help="a score from here on is a success")


def source_of(options: Mapping[str, Any], prices: Prices) -> Source:
    """Return the source for parsed options of `add_arguments` and `tasks`."""
    names = ("log", "mapping", "latency_unit", "grade", "grades", "success_from")
    return Source(path=options["tasks"], prices=prices, **{name: options[name] for name in names})


def _refuse_unused(source: Source) -> None:
    """Raise `ValueError` for an option that this kind of file does not take: ignored, it would seem to have worked."""
    kind, only, names = "A table", "name the kind of `log`", ["latency_unit", "grade", "grades"]
    if source.log:
        kind, only, names = f"A log of {source.log}", "it is for a table", ["mapping"]
    if unused := [name for name in names if getattr(source, name)]:
        raise ValueError(f"{kind} takes no `{unused[0]}`; {only}.")
    if source.grades and source.log != "langfuse":
        raise ValueError(
            f"A log of {source.log} takes no file of `grades`; only Langfuse keeps its scores in a separate file."
        )
    if source.log == "langfuse" and source.grade and not source.grades:
        raise ValueError("Langfuse's scores are in a file of their own: `manage.py backtest --grades FILE`.")
    if source.log == "opentelemetry" and source.grade:
        raise ValueError("A span's grade is its attribute pointsman.success; leave out `grade`.")


def open_tasks(source: Source) -> Iterator[Task]:
    """Return the tasks of a source.

    Raises `ValueError` for wrong options, `UnreadableTasks` for a file that is refused (before the first task of a
    log, after the last one of a table), `OSError` if it cannot be opened.
    """
    name, problems = Path(source.path).name, Problems()
    if source.log and source.log not in LOGS:
        raise ValueError(f"The log {source.log!r} is not supported; use one of {', '.join(LOGS)}.")
    _refuse_unused(source)
    if not source.log:
        mapping = _mapping(source.mapping, source.most_mapped)
        return read_table(open_records(source.path, problems), name, problems, mapping, source.prices)
    if source.log == "pointsman":
        return (logged.task for logged in open_task_log(source).tasks())
    rows = open_rows(source.path, problems)
    if source.log == "opentelemetry":
        rows = formats.spans(rows)
    return read_log(rows, name, problems, _reader(source)(), _grades(source))


def open_task_log(source: Source) -> TaskLogFiles:
    """Open a router's task log together with its rotated files."""
    _refuse_unused(source)
    return TaskLogFiles.of(source.path, source.grade, source.success_from)


def _mapping(path: str, most: int) -> TableMapping | None:
    if not path:
        return None
    try:
        document = parse(Path(path).read_bytes(), syntax="yaml").data
    except PolicyInvalid as error:
        if error.problems[0].code == "wrong_type":
            document = {}
        else:
            raise ValueError(f"{Path(path).name} is not valid YAML for a mapping: {error}") from None
    try:
        mapping = read_mapping(document)
    except ValueError as error:
        raise ValueError(f"{Path(path).name}: {error}") from None
    if most and mapping.size > most:
        raise ValueError(
            f"The mapping names {mapping.size:,} models and inputs; at most {most:,} are allowed here. "
            "`manage.py backtest` has no limit."
        )
    return mapping


def _reader(source: Source) -> Callable[[], Any]:
    match source.log:
        case "litellm":
            return lambda: formats.litellm(source.prices, source.grade)
        case "langfuse":
            if source.latency_unit not in ("ms", "s"):
                raise ValueError(
                    "Say whether Langfuse's latency is in ms or s: integrations made before 2026-04-01 export "
                    "milliseconds, later ones seconds, and the file does not say which."
                )
            return lambda: formats.langfuse(source.prices, source.latency_unit)
        case "helicone":
            return lambda: formats.helicone(source.prices, source.grade, source.success_from)
    return lambda: formats.opentelemetry(source.prices)


def _grades(source: Source) -> Grades:
    if source.log != "langfuse" or not source.grades:
        return {}
    if not source.grade:
        raise ValueError("Name the score to use as the grade; a Langfuse project can have several.")
    return formats.langfuse_grades(source.grades, source.grade, source.success_from)
