"""Read rows of a file: CSV, JSON lines, a JSON array, Parquet (with pyarrow); text formats also as `.gz`.

    open_records   (number, columns, values) of each row, for tables; rows of one layout share the columns tuple
    open_rows      (number, {column: value}) of each row, for logs

Rows count from 1. A malformed row goes into `Problems` and reading continues, so that one run reports them all. A
file that cannot be read further is refused with the problems found so far. A file is never held in memory.
"""

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec

from rollout_app.backtest.readers.problems import Problems, UnreadableTasks

Row = dict[str, Any]
Columns = tuple[str, ...]
Record = tuple[int, Columns, Sequence[Any]]
MAX_LINE = 16 * 1024 * 1024  # bytes (characters for CSV): longer lines are refused
csv.field_size_limit(MAX_LINE)  # of the whole process; the standard 131,072 is less than a long prompt
_ARRAY_LIMIT = 256 * 1024 * 1024  # bytes of a JSON array, which is read at once; JSON lines have no limit
_PARQUET_BATCH = 8_192
_BROKEN = (EOFError, zlib.error, OSError)  # a truncated archive, or not an archive


def open_records(path: str | Path, problems: Problems) -> Iterator[Record]:
    """Yield (row number, columns, values) of a file, by its extension.

    Supports .csv, .tsv, .jsonl, .ndjson, .json and .parquet, and .gz of the text formats. Raises `UnreadableTasks` if
    the content does not match the extension, `OSError` if the file cannot be opened.
    """
    place = Path(path)
    match _ending(place):
        case ".csv" | ".txt":
            return _csv(place, ",", problems)
        case ".tsv":
            return _csv(place, "\t", problems)
        case ".parquet":
            return _parquet(place, problems)
    return ((number, tuple(row), tuple(row.values())) for number, row in open_rows(place, problems))


def open_rows(path: str | Path, problems: Problems) -> Iterator[tuple[int, Row]]:
    """Yield (row number, row) of a file. Errors as in `open_records`."""
    place = Path(path)
    match _ending(place):
        case ".jsonl" | ".ndjson":
            return _json_lines(place, problems)
        case ".json":
            return _json_array(place, problems)
        case ".csv" | ".txt" | ".tsv" | ".parquet":
            records = open_records(place, problems)
            return ((number, dict(zip(columns, values, strict=True))) for number, columns, values in records)
    message = "the extension must be .csv, .tsv, .jsonl, .ndjson, .json (or .gz of these) or .parquet"
    _refuse(place, problems, "format", message)


def _ending(place: Path) -> str:
    return (place.with_suffix("").suffix if place.suffix == ".gz" else place.suffix).lower()


def _binary(place: Path) -> IO[bytes]:
    return gzip.open(place, "rb") if place.suffix == ".gz" else place.open("rb")  # type: ignore[return-value]


# --- CSV ----------------------------------------------------------------------------------------------


def _csv(place: Path, delimiter: str, problems: Problems) -> Iterator[Record]:
    with _binary(place) as file:
        lines = _lines(place, io.TextIOWrapper(file, "utf-8-sig", newline=""), problems)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 0
        try:
            columns = _header(place, next(reader, []), problems)
            width = len(columns)
            for row in reader:
                if not row:  # an empty line
                    continue
                number += 1
                if len(row) == width:
                    yield number, columns, row
                else:
                    what = f"it has {len(row):,} values, but the header names {width:,} columns"
                    problems.add(number, "", "columns", what)
        except (UnicodeDecodeError, csv.Error, *_BROKEN) as error:
            _refuse(place, problems, "encoding", f"it is not CSV in UTF-8: {error}", number + 1)


def _header(place: Path, names: list[str], problems: Problems) -> Columns:
    columns = tuple(name.strip() for name in names)
    twice = sorted(name for name, count in Counter(columns).items() if name and count > 1)
    if twice:  # ambiguous
        _refuse(place, problems, "header", f"the header names {', '.join(twice[:5])} twice")
    return columns


def _lines(place: Path, file: io.TextIOWrapper, problems: Problems) -> Iterator[str]:
    """Yield the lines of a text up to `MAX_LINE`, so that a file without line ends is not read into memory."""
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            _refuse(place, problems, "length", f"a line is longer than {MAX_LINE:,} characters")
        yield line


# --- JSON ---------------------------------------------------------------------------------------------


def _json_lines(place: Path, problems: Problems) -> Iterator[tuple[int, Row]]:
    decode = msgspec.json.Decoder().decode
    number = 0
    with _binary(place) as file:
        try:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    _refuse(place, problems, "length", f"the line is longer than {MAX_LINE:,} bytes", number)
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                if not line or line.isspace():
                    continue
                try:
                    row = decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    problems.add(number, "", "encoding", f"it is not JSON: {error}")
                    continue
                if isinstance(row, dict):
                    yield number, row
                else:
                    problems.add(number, "", "shape", "an object was expected")
        except _BROKEN as error:
            _refuse(place, problems, "encoding", f"it is not readable text: {error}", number + 1)


def _json_array(place: Path, problems: Problems) -> Iterator[tuple[int, Row]]:
    with _binary(place) as file:
        try:
            text = file.read(_ARRAY_LIMIT + 1)
            if len(text) > _ARRAY_LIMIT:
                message = f"a JSON array of over {_ARRAY_LIMIT // 2**20} MiB: write it as JSON lines (.jsonl)"
                _refuse(place, problems, "length", message)
            document = msgspec.json.decode(text.removeprefix(codecs.BOM_UTF8))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, *_BROKEN) as error:
            _refuse(place, problems, "encoding", f"it is not JSON: {error}")
    del text
    rows = document
    if isinstance(document, dict):  # an OTLP request is one row; other tools wrap their list in an object
        rows = [document] if "resourceSpans" in document else document.get("data", document.get("rows"))
    if not isinstance(rows, list):
        _refuse(place, problems, "shape", "a list of objects was expected")
    for number, row in enumerate(rows, start=1):
        if isinstance(row, dict):
            yield number, row
        else:
            problems.add(number, "", "shape", "an object was expected")


# --- Parquet ------------------------------------------------------------------------------------------


def _parquet(place: Path, problems: Problems) -> Iterator[Record]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        message = "Parquet needs the package pyarrow: pip install pyarrow, or write CSV or JSON lines"
        _refuse(place, problems, "format", message)
    number = 0
    try:
        with parquet.ParquetFile(place) as file:
            for batch in file.iter_batches(_PARQUET_BATCH):
                columns = tuple(batch.schema.names)
                for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, columns, values
    except FileNotFoundError:
        raise
    except (ArrowException, OSError) as error:
        _refuse(place, problems, "encoding", f"it is not a Parquet file: {error}", number)


def _refuse(place: Path, problems: Problems, kind: str, message: str, row: int = 0) -> NoReturn:
    problems.add(row, "", kind, message)
    raise UnreadableTasks(place.name, problems)
