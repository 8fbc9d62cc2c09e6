"""What entries speak of: rows of other tables, held against what the log says of them.

An app registers a `Subject` for each kind of row that an auditor must be able to trust. While the log is read, each
subject collects what the entries say its rows are; afterwards the rows are read, and each difference is a finding:

    contradicted   a row says other than its entries      missing      entries speak of a row that is gone
    unrecorded     a row that no entry speaks of
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from controlplane.audit import chain
from controlplane.audit.verify import Finding

Values = Mapping[str, Any]
Said = tuple[str, Values | None]  # a row's name, and what it is from now on; None: it is gone
UNSAID = object()  # of a column: an entry changed it, and does not say to what (as older versions did)


@dataclass(frozen=True, slots=True)
class Subject:
    """`said` reads an entry's body into what it says of rows of this kind; `rows` are the rows as they are stored.

    `unsaid`: what a row holds that a new database begins with, so that no entry tells of it.
    """

    kind: str
    said: Callable[[Mapping[str, Any]], Iterable[Said]]
    rows: Callable[[], Iterable[tuple[str, Values]]]
    unsaid: Callable[[str], Values | None] = lambda name: None


_registered: dict[str, Subject] = {}


def register(subject: Subject) -> None:
    _registered[subject.kind] = subject


def by_target(kind: str, rows: Callable[[], Iterable[tuple[str, Values]]]) -> Subject:
    """Rows that are the target of their entries, and whose values are in the entries' differences."""

    def said(body: Mapping[str, Any]) -> Iterable[Said]:
        if body["target"]["kind"] == kind and body["diff"]:
            yield body["target"]["id"], replayed(body["diff"])

    return Subject(kind, said, rows)


def replayed(diff: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What a difference says of a row's own columns from then on; of what is inside a column, nothing."""
    return {change["path"][1:]: change.get("after") for change in diff if change["path"].count("/") == 1}


@dataclass(slots=True)
class Witness:
    """Collects what a log says of every registered subject while it is read, then compares."""

    expected: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)

    def read(self, body: Mapping[str, Any]) -> None:
        if body.get("outcome") != "done":
            return
        for subject in _registered.values():
            try:
                told = list(subject.said(body))
            except (KeyError, TypeError, AttributeError, ValueError):
                continue  # an entry that is no entry is found where it stands
            known = self.expected.setdefault(subject.kind, {})
            for name, values in told:
                known[name] = None if values is None else {**(known.get(name) or {}), **values}

    def findings(self) -> Iterable[Finding]:
        for subject in _registered.values():
            yield from _compared(subject, dict(self.expected.get(subject.kind, {})))


def _same(stored: Any, told: Any) -> bool:
    """Whether two values are one. A number may have been written with fewer digits than its column keeps."""
    if stored == told or not (isinstance(stored, str) and isinstance(told, str)):
        return bool(stored == told) and isinstance(stored, bool) == isinstance(told, bool)
    try:
        return Decimal(stored) == Decimal(told)
    except InvalidOperation:
        return False


def _compared(subject: Subject, expected: dict[str, dict[str, Any] | None]) -> Iterable[Finding]:
    for name, row in subject.rows():
        where = f"{subject.kind} {name}"
        values = expected.pop(name) if name in expected else subject.unsaid(name)
        if values is None:
            yield Finding("unrecorded", 0, "no entry of the log made this row", where)
            continue
        wrong = sorted(
            column
            for column in values
            if column in row
            and values[column] is not UNSAID
            and not _same(chain.plain(row[column]), values[column])
        )
        for column in wrong:
            yield Finding(
                "contradicted",
                0,
                f"{column} is {str(row[column])[:80]!r}; the log says {str(values[column])[:80]!r}",
                where,
            )
    for name, values in expected.items():
        if values is not None:
            yield Finding("missing", 0, "the log says that it is there", f"{subject.kind} {name}")
