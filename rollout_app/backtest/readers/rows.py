"""Rows of a file as dictionaries: CSV, JSON lines, a JSON array, Parquet (with pyarrow), each also as `.gz`."""

import csv
import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec

from rollout_app.backtest.readers.problems import Problems, UnreadableTasks

Row = dict[str, Any]
MAX_LINE = 16 * 1024 * 1024  # bytes: a line that long is no record
_ARRAY_LIMIT = 256 * 1024 * 1024  # bytes of a JSON array, which is read whole; JSON lines have no limit
_PARQUET_BATCH = 8_192


def open_rows(path: str | Path) -> Iterator[tuple[int, Row]]:
    """(row number from 1, row) of a file, by its ending: .csv, .tsv, .jsonl, .ndjson, .json, .parquet, and .gz of them.

    Raises `UnreadableTasks` where it is not what its ending says, `OSError` where it can't be opened.
    """
    place = Path(path)
    ending = place.with_suffix("").suffix if place.suffix == ".gz" else place.suffix
    match ending.lower():
        case ".csv" | ".txt":
            return _csv(place, ",")
        case ".tsv":
            return _csv(place, "\t")
        case ".jsonl" | ".ndjson":
            return _json_lines(place)
        case ".json":
            return _json_array(place)
        case ".parquet":
            return _parquet(place)
    _refuse(place, "format", "the ending is none of .csv, .tsv, .jsonl, .ndjson, .json and .parquet (or .gz)")


def _binary(place: Path) -> IO[bytes]:
    return gzip.open(place, "rb") if place.suffix == ".gz" else place.open("rb")  # type: ignore[return-value]


def _csv(place: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    with _binary(place) as file:
        reader = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=delimiter)
        number = 0
        try:
            for number, row in enumerate(reader, start=1):
                if None in row:
                    _refuse(
                        place,
                        "columns",
                        f"it has more values than the header names ({len(reader.fieldnames or ())})",
                        number,
                    )
                yield number, row
        except (UnicodeDecodeError, csv.Error, EOFError, gzip.BadGzipFile) as error:
            _refuse(place, "encoding", f"it is no CSV in UTF-8: {error}", number + 1)


def _json_lines(place: Path) -> Iterator[tuple[int, Row]]:
    decoder = msgspec.json.Decoder()
    number = 0
    with _binary(place) as file:
        try:
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    _refuse(place, "length", f"the line is longer than {MAX_LINE:,} bytes", number)
                if line.isspace():
                    continue
                row = decoder.decode(line)
                if not isinstance(row, dict):
                    _refuse(place, "shape", "an object was expected", number)
                yield number, row
        except (msgspec.DecodeError, UnicodeDecodeError, EOFError, gzip.BadGzipFile, RecursionError) as error:
            _refuse(place, "encoding", f"it is no JSON: {error}", number)


def _json_array(place: Path) -> Iterator[tuple[int, Row]]:
    with _binary(place) as file:
        text = file.read(_ARRAY_LIMIT + 1)
    if len(text) > _ARRAY_LIMIT:
        _refuse(
            place,
            "length",
            f"a JSON array of over {_ARRAY_LIMIT // 2**20} MiB: write it as JSON lines (.jsonl)",
        )
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _refuse(place, "encoding", f"it is no JSON: {error}")
    rows = document.get("data", document.get("rows")) if isinstance(document, dict) else document
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        _refuse(place, "shape", "a list of objects was expected")
    yield from enumerate(rows, start=1)


def _parquet(place: Path) -> Iterator[tuple[int, Row]]:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError:
        _refuse(
            place,
            "format",
            "Parquet needs the package pyarrow: pip install pyarrow, or write CSV or JSON lines",
        )
    number = 0
    try:
        for batch in parquet.ParquetFile(place).iter_batches(_PARQUET_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowInvalid, OSError) as error:
        _refuse(place, "encoding", f"it is no Parquet file: {error}", number)


def _refuse(place: Path, kind: str, message: str, row: int = 0) -> NoReturn:
    problems = Problems()
    problems.add(row, "", kind, message)
    raise UnreadableTasks(place.name, problems)
