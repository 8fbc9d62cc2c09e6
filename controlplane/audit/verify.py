"""Detect tampering with the log, and the entries affected. Pure: rows in, findings out; nothing raises.

It compares three sources: the entries, the head with the log's end, and the signed checkpoints.
`controlplane.audit.subjects` adds the fourth: the rows that entries describe (versions, approvals, transitions …).
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controlplane.audit import chain
from controlplane.audit.notes import Note

Kind = Literal[
    "altered",  # differs from what was written
    "missing",  # existed, and is gone
    "reordered",  # is in another place
    "forked",  # belongs to another history
    "truncated",  # the end is gone
    "bad signature",  # a checkpoint not signed by a trusted key
    "forged",  # not written by Pointsman
    "unrecorded",  # a row that no entry describes
    "contradicted",  # a row that differs from its entries
]
# Exceptions raised by a stored value that does not fit its column: JSON of another shape, or any type in SQLite.
UNREADABLE = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError)
RESUME = "audit.resume"  # action of an entry that continues the log after rows that Pointsman did not write


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as stored. `columns` are the copies of its members that the database filters by."""

    seq: int
    body: bytes
    prev_hash: str
    hash: str
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class StoredHead:
    chain: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem, at entry `seq` (0: no entry). `where` names anything that is not an entry: `head`, `version a/3`."""

    kind: Kind
    seq: int
    sentence: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where or f'entry {self.seq}'}: {self.kind}: {self.sentence}"


class Examination:
    """Reads a log once, from start to end. `findings` accumulates; `last` and `hash` are the last entry read.

    `wanted` are the entry numbers whose hashes are needed afterwards (checkpoints, the head); other hashes are not
    kept. `witness` is called with the body of each readable entry.
    """

    def __init__(
        self,
        chain_id: str,
        wanted: Iterable[int] = (),
        columns_of: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None,
        witness: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        self.chain_id, self.columns_of, self.witness = chain_id, columns_of, witness
        self.findings: list[Finding] = []
        self.last, self.hash = 0, chain.genesis(chain_id)
        self.count = 0
        self.hashes = dict.fromkeys(wanted, "")
        self._seen = {self.hash: 0}
        self._resumed_from = -1  # the entry that a resuming entry continues from; -1: it is an ordinary entry

    # --- entries --------------------------------------------------------------------------------------

    def read(self, rows: Iterable[StoredEntry]) -> None:
        try:
            self._read(rows)
        except UNREADABLE as error:
            sentence = f"its row cannot be read ({error}); repair it, then verify those that follow it"
            self._add_finding("altered", self.last + 1, sentence)

    def _read(self, rows: Iterable[StoredEntry]) -> None:
        for row in rows:
            self.count += 1
            body = _parsed(row.body)
            self._resumed_from = self._resumption(row, body)
            if (finding := self._first_problem(row, body)) is not None:
                self.findings.append(finding)
            if row.seq > self.last + 1:
                gone = f"{self.last + 1} to {row.seq - 1}" if row.seq > self.last + 2 else f"{self.last + 1}"
                self._add_finding(
                    "missing", self.last + 1, f"the log continues at {row.seq}; {gone} is missing"
                )
            if body is not None and self.witness is not None:
                self.witness(body)
            self.last, self.hash = row.seq, row.hash
            self._seen[row.hash] = row.seq
            if row.seq in self.hashes:
                self.hashes[row.seq] = row.hash

    def _first_problem(self, row: StoredEntry, body: Mapping[str, Any] | None) -> Finding | None:
        """Return the first problem of a row. Problems that follow from it are not reported."""
        if not (chain.is_hash(row.hash) and chain.is_hash(row.prev_hash)):
            return Finding("altered", row.seq, "its hash, or the one before it, is not a SHA-256 in hex")
        if row.seq <= self.last:
            kind: Kind = "reordered" if row.hash in self._seen else "forked"
            return Finding(kind, row.seq, f"it comes after {self.last}; numbers must be unique and in order")
        if chain.link(row.prev_hash, row.body) != row.hash:
            return Finding("altered", row.seq, "its content is not what was hashed when it was written")
        if body is None:
            return Finding("altered", row.seq, "its content is not an entry")
        if body["seq"] != row.seq:
            return Finding("reordered", row.seq, f"it contains what was written as entry {body['seq']}")
        if body["chain"] != self.chain_id:
            return Finding("forked", row.seq, f"it belongs to another log ({body['chain']})")
        if differing := self._differing_columns(row, body):
            return Finding("altered", row.seq, f"its column {differing} differs from its content")
        return self._link_problem(row)

    def _differing_columns(self, row: StoredEntry, body: Mapping[str, Any]) -> str:
        if self.columns_of is None or row.columns is None:
            return ""
        try:
            expected = self.columns_of(body)
        except (KeyError, TypeError, AttributeError):
            return "(all: its content is not an entry of this version)"
        return ", ".join(name for name in row.columns if row.columns[name] != expected.get(name))

    def _link_problem(self, row: StoredEntry) -> Finding | None:
        if row.prev_hash == self.hash or row.seq != self.last + 1 or self._resumed_from >= 0:
            return None  # after a gap the link cannot be checked
        before = self._seen.get(row.prev_hash)
        if before is not None:
            return Finding("forked", row.seq, f"it continues entry {before}, which already has a successor")
        return Finding("altered", self.last, f"it was rewritten after entry {row.seq} had been chained to it")

    def _resumption(self, row: StoredEntry, body: Mapping[str, Any] | None) -> int:
        """Return the entry that a resuming entry continues from, or -1 for an ordinary entry.

        Its cause is always a finding."""
        if body is None or body.get("action") != RESUME:
            return -1
        told = body.get("evidence")
        base = told.get("base") if isinstance(told, dict) else None
        found = told.get("found") if isinstance(told, dict) else None
        if not isinstance(base, dict) or not isinstance(found, list) or not isinstance(told, dict):
            self._add_finding("forged", row.seq, "it claims to resume the log and does not say from where")
            return -1
        known = self._seen.get(str(base.get("hash")))
        if (
            known is None
            or known != base.get("seq")
            or row.prev_hash
            != chain.resume(str(base.get("hash")), {"found": found, "nonce": told.get("nonce")})
        ):
            self._add_finding(
                "forged", row.seq, "it claims to resume the log from an entry that does not exist"
            )
            return -1
        for item in found or [{}]:
            told_of = item if isinstance(item, dict) else {}
            where = f"entry {told_of['seq']}" if "seq" in told_of else str(told_of.get("what", "the log"))
            self.findings.append(
                Finding(
                    "forged",
                    row.seq,
                    f"Pointsman found {where} changed by somebody else, and continued from entry {base['seq']}",
                )
            )
        return int(base["seq"])

    # --- head -----------------------------------------------------------------------------------------

    def compare_head(self, head: StoredHead | None, others: int = 0, proven: int = 0) -> None:
        """Compare the log with the head as stored before reading.

        `others` is the number of extra head rows, which should be 0. `proven` is the last entry covered by a
        checkpoint.
        """
        if others:
            self._add_finding("forged", 0, f"there are {others} extra head rows", "head")
        if head is None:
            if self.count or proven:
                self._add_finding("missing", 0, f"the head row is gone; the log ends at {self.last}", "head")
            return
        if head.chain != self.chain_id:
            self._add_finding("altered", 0, f"the head names another log ({head.chain})", "head")
        if head.seq > self.last:
            self._add_finding(
                "truncated", self.last + 1, f"the log ends at {self.last}; its head says {head.seq}"
            )
        elif head.seq < self.last:
            self._add_finding(
                "forged", head.seq + 1, f"it lies beyond the head, which says that the log ends at {head.seq}"
            )
        if head.seq <= self.last and head.hash != (self.hashes.get(head.seq) or self._genesis(head.seq)):
            self._add_finding("altered", head.seq, "the head has a different hash for it")

    def _genesis(self, seq: int) -> str:
        return chain.genesis(self.chain_id) if seq == 0 else ""

    # --- checkpoints ----------------------------------------------------------------------------------

    def compare_note(self, note: Note, signed: bool) -> None:
        """Compare the log with a checkpoint. Somebody who rewrites the whole chain cannot forge its signature."""
        if not signed:
            self._add_finding("bad signature", note.seq, "its checkpoint was not signed by a trusted key")
        elif note.chain != self.chain_id:
            self._add_finding("forked", note.seq, f"a checkpoint belongs to another log ({note.chain})")
        elif note.seq > self.last:
            self._add_finding(
                "truncated",
                self.last + 1,
                f"the log ends at {self.last}; a signed checkpoint proves that entry {note.seq} existed",
            )
        elif self.hashes.get(note.seq) != note.hash:
            self._add_finding(
                "forked",
                note.seq,
                "a signed checkpoint has a different hash for it: it or an earlier one was rewritten",
            )

    def _add_finding(self, kind: Kind, seq: int, sentence: str, where: str = "") -> None:
        self.findings.append(Finding(kind, seq, sentence, where))


def _parsed(body: bytes) -> Mapping[str, Any] | None:
    """Parse an entry's body; None if it is not an entry."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("chain"), str):
        return None
    seq = found.get("seq")
    return found if isinstance(seq, int) and not isinstance(seq, bool) else None
