"""Compares rows of other tables with the entries that describe them.

An app registers a `Subject` for each kind of row that an auditor must be able to trust. While the log is read, each
subject collects the values that the entries give its rows; afterwards the rows are read, and each difference is a
finding:

    contradicted   a row differs from its entries      missing      entries describe a row that is gone
    unrecorded     a row that no entry describes
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from controlplane.audit import chain
from controlplane.audit.verify import UNREADABLE, Finding

Values = Mapping[str, Any]
Told = Mapping[str, Mapping[str, Values | None]]  # by kind and row
Said = tuple[str, Values | None]  # a row's name, and its values from now on; None: the row was removed
UNSAID = object()  # an entry changed the column but does not give its value (older versions did this)


@dataclass(frozen=True, slots=True)
class Subject:
    """`said` yields the rows of this kind that an entry's body describes, with values; `rows` yields the stored rows.

    `unsaid` returns the values of rows that every new database contains, which no entry describes. `implied` yields
    values that an entry leaves out because they did not change, given what the log has said so far about every kind.
    """

    kind: str
    said: Callable[[Mapping[str, Any]], Iterable[Said]]
    rows: Callable[[], Iterable[tuple[str, Values]]]
    unsaid: Callable[[str], Values | None] = lambda name: None
    implied: Callable[[Mapping[str, Any], Told], Iterable[Said]] = lambda body, told: ()


_registered: dict[str, Subject] = {}


def register(subject: Subject) -> None:
    _registered[subject.kind] = subject


def by_target(kind: str, rows: Callable[[], Iterable[tuple[str, Values]]]) -> Subject:
    """Return a subject whose rows are the targets of their entries, with their values in the entries' diffs."""

    def said(body: Mapping[str, Any]) -> Iterable[Said]:
        if body["target"]["kind"] == kind and body["diff"]:
            yield body["target"]["id"], replayed(body["diff"])

    return Subject(kind, said, rows)


def replayed(diff: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the new values of a row's columns given by a diff. Changes inside a column are skipped."""
    return {change["path"][1:]: change.get("after") for change in diff if change["path"].count("/") == 1}


@dataclass(slots=True)
class Witness:
    """Collects what a log says about every registered subject while it is read, then compares it with the rows."""

    expected: dict[str, dict[str, dict[str, Any] | None]] = field(default_factory=dict)

    def read(self, body: Mapping[str, Any]) -> None:
        if body.get("outcome") != "done":
            return
        for subject in _registered.values():
            try:
                told = [*subject.implied(body, self.expected), *subject.said(body)]
            except (KeyError, TypeError, AttributeError, ValueError):
                continue  # a malformed entry is reported elsewhere
            known = self.expected.setdefault(subject.kind, {})
            for name, values in told:
                known[name] = None if values is None else {**(known.get(name) or {}), **values}

    def findings(self) -> Iterable[Finding]:
        for subject in _registered.values():
            yield from _compared(subject, dict(self.expected.get(subject.kind, {})))


def _same(stored: Any, told: Any) -> bool:
    """Return whether two values are equal. A number may have been written with fewer digits than its column stores."""
    if stored == told or not (isinstance(stored, str) and isinstance(told, str)):
        return bool(stored == told) and isinstance(stored, bool) == isinstance(told, bool)
    try:
        return Decimal(stored) == Decimal(told)
    except InvalidOperation:
        return False


def _readable(subject: Subject, broken: list[Finding]) -> Iterator[tuple[str, Values]]:
    """Yield the rows up to one that cannot be read, which no action wrote: it becomes a finding in `broken`."""
    last = ""
    try:
        for name, row in subject.rows():
            yield name, row
            last = f" after {name}"
    except UNREADABLE as error:
        sentence = f"a row{last} cannot be read ({error}); repair it, then verify the rows that follow it"
        broken.append(Finding("contradicted", 0, sentence, subject.kind))


def _compared(subject: Subject, expected: dict[str, dict[str, Any] | None]) -> Iterable[Finding]:
    broken: list[Finding] = []
    for name, row in _readable(subject, broken):
        where = f"{subject.kind} {name}"
        values = expected.pop(name) if name in expected else subject.unsaid(name)
        if values is None:
            yield Finding("unrecorded", 0, "no entry of the log created this row", where)
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
    yield from broken
    for name, values in expected.items():
        if values is not None and not broken:
            yield Finding(
                "missing", 0, "the row is gone, but the log says that it exists", f"{subject.kind} {name}"
            )
