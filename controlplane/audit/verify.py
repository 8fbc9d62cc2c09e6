"""What was done to the log behind Pointsman's back, and to which entry. Pure: rows in, findings out."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from controlplane.audit import chain
from controlplane.audit.notes import Note

Kind = Literal["altered", "missing", "reordered", "forked", "truncated", "bad signature"]


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry as it is stored. `columns` are the copies of its members that the database filters by."""

    seq: int
    body: bytes
    prev_hash: str
    hash: str
    columns: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, at entry `seq`."""

    kind: Kind
    seq: int
    sentence: str

    def __str__(self) -> str:
        return f"entry {self.seq}: {self.kind}: {self.sentence}"


class Examination:
    """Reads a log once, front to back. `findings` grows; `last` and `hash` are where it has come to.

    `wanted` are the numbers whose hashes are asked for afterwards (checkpoints, the head): all are not kept.
    """

    def __init__(
        self,
        chain_id: str,
        wanted: Iterable[int] = (),
        columns_of: Callable[[Mapping[str, Any]], Mapping[str, str]] | None = None,
    ) -> None:
        self.chain_id, self.columns_of = chain_id, columns_of
        self.findings: list[Finding] = []
        self.last, self.hash = 0, chain.genesis(chain_id)
        self.count = 0
        self.hashes = dict.fromkeys(wanted, "")
        self._seen = {bytes.fromhex(self.hash): 0}

    def read(self, rows: Iterable[StoredEntry]) -> None:
        for row in rows:
            self.count += 1
            if (finding := self._first_problem(row)) is not None:
                self.findings.append(finding)
            if row.seq > self.last + 1:
                gone = f"{self.last + 1} to {row.seq - 1}" if row.seq > self.last + 2 else f"{self.last + 1}"
                self._add_finding(
                    "missing", self.last + 1, f"the log goes on at {row.seq}; {gone} is not there"
                )
            self.last, self.hash = row.seq, row.hash
            self._seen[bytes.fromhex(row.hash)] = row.seq
            if row.seq in self.hashes:
                self.hashes[row.seq] = row.hash

    def _first_problem(self, row: StoredEntry) -> Finding | None:
        """The first thing that is wrong with a row; what follows from it is not worth a sentence."""
        if row.seq <= self.last:
            kind: Kind = "reordered" if bytes.fromhex(row.hash) in self._seen else "forked"
            return Finding(kind, row.seq, f"it comes after {self.last}; a number occurs once, in order")
        if chain.link(row.prev_hash, row.body) != row.hash:
            return Finding("altered", row.seq, "its content is not what was hashed when it was written")
        try:
            body = json.loads(row.body)
            seq, own_chain = body["seq"], body["chain"]
        except (ValueError, KeyError, TypeError):
            return Finding("altered", row.seq, "its content is no entry")
        if seq != row.seq:
            return Finding("reordered", row.seq, f"it holds what was written as entry {seq}")
        if own_chain != self.chain_id:
            return Finding("forked", row.seq, f"it belongs to another log ({own_chain})")
        if self.columns_of is not None and row.columns is not None and self.columns_of(body) != row.columns:
            return Finding(
                "altered", row.seq, "the columns that lists are filtered by differ from its content"
            )
        return self._link_problem(row)

    def _link_problem(self, row: StoredEntry) -> Finding | None:
        if row.prev_hash == self.hash or row.seq != self.last + 1:
            return None  # after a gap nothing can be said of the link
        before = self._seen.get(bytes.fromhex(row.prev_hash))
        if before is not None:
            return Finding(
                "forked", row.seq, f"it continues entry {before}, as another history did before it"
            )
        return Finding(
            "altered", self.last, f"it was written anew after entry {row.seq} had been chained to it"
        )

    def compare_head(self, seq: int, hash_: str) -> None:
        """Hold the log against the head as it was before reading."""
        if seq > self.last:
            self._add_finding("truncated", self.last + 1, f"the log ends at {self.last}; its head says {seq}")
        elif seq and self.hashes.get(seq) != hash_:
            self._add_finding("altered", seq, "the head has another hash for it")

    def compare_note(self, note: Note, signed: bool) -> None:
        """Hold the log against a checkpoint. An attacker who rewrites the whole chain cannot forge its signatures."""
        if not signed:
            self._add_finding(
                "bad signature", note.seq, "its checkpoint was not signed by a key that is trusted here"
            )
        elif note.chain != self.chain_id:
            self._add_finding("forked", note.seq, f"a checkpoint is of another log ({note.chain})")
        elif note.seq > self.last:
            self._add_finding(
                "truncated",
                self.last + 1,
                f"the log ends at {self.last}; a signed checkpoint proves that there was entry {note.seq}",
            )
        elif self.hashes.get(note.seq) != note.hash:
            self._add_finding(
                "forked",
                note.seq,
                "a signed checkpoint has another hash for it: it or one before was rewritten",
            )

    def _add_finding(self, kind: Kind, seq: int, sentence: str) -> None:
        self.findings.append(Finding(kind, seq, sentence))
