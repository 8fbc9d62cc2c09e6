"""Exports of the log: JSON lines that can be verified without Pointsman, and CSV for spreadsheets."""

import csv
import io
import json
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from typing import IO

from django.db.models import QuerySet
from django.http import FileResponse
from django.http.response import HttpResponseBase

from controlplane.audit import chain, sentences
from controlplane.audit.entries import body_of
from controlplane.audit.models import Entry

FORMATS = {"jsonl": "application/jsonl", "csv": "text/csv; charset=utf-8"}
_CSV = (
    "seq", "at", "actor_kind", "actor_id", "actor_label", "action", "target_kind", "target_id", "environment",
    "workload", "outcome", "reason", "hash", "person",
)  # fmt: skip


def lines(entries: QuerySet[Entry], form: str) -> Iterator[str]:
    """Yield the entries, oldest first, each as a line with a line break."""
    return {"jsonl": _json_lines, "csv": _csv_lines}[form](entries.order_by("seq", "pk"))


def _json_lines(entries: QuerySet[Entry]) -> Iterator[str]:
    for entry in entries.iterator():
        body = bytes(entry.body).decode("utf-8", "replace")
        row = {"seq": entry.seq, "prev_hash": entry.prev_hash, "hash": entry.hash, "body": body}
        yield json.dumps(row) + "\n"


def _csv_lines(entries: QuerySet[Entry]) -> Iterator[str]:
    yield _csv_line(_CSV)
    person = lru_cache(4096)(sentences.person_of)
    for entry in entries.iterator():
        values = {name: getattr(entry, name) for name in _CSV[:-1]} | {"at": chain.timestamp(entry.at)}
        values["person"] = person(sentences.user_id(body_of(entry)))
        yield _csv_line([_as_text(values[name]) for name in _CSV])


def _csv_line(values: "list[str] | tuple[str, ...]") -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()


def _as_text(value: object) -> str:
    """Return a cell that a spreadsheet shows but never evaluates: `=cmd()` in a reason is text (OWASP, CSV
    injection)."""
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def write(entries: QuerySet[Entry], form: str, file: IO[bytes]) -> None:
    """Write all lines to an open file."""
    for line in lines(entries, form):
        file.write(line.encode())


def response(entries: QuerySet[Entry], form: str) -> HttpResponseBase:
    """Return the export, written to a file first, so that a slow client holds a file and not a query open."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 — the response closes it
    write(entries, form, file)
    file.seek(0)
    answer = FileResponse(file, as_attachment=True, filename=f"pointsman-audit.{form}")
    answer["Content-Type"] = FORMATS[form]
    return answer
