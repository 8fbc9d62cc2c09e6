"""What verification says about each kind of damage: the entry, the kind and the sentence. No database."""

from typing import Any

import pytest

from controlplane.audit import chain
from controlplane.audit.notes import Note
from controlplane.audit.verify import RESUME, Examination, StoredEntry, StoredHead

# --- entries ------------------------------------------------------------------------------


def row(seq: int, previous: str, **members: Any) -> StoredEntry:
    """A correctly hashed entry."""
    body = chain.canonical({"chain": "c", "seq": seq} | members)
    return raw(seq, previous, body)


def raw(seq: int, previous: str, body: bytes) -> StoredEntry:
    return StoredEntry(seq, body, previous, chain.link(previous, body))


ONE = row(1, chain.genesis("c"))
TWO = row(2, ONE.hash)
THREE = row(3, TWO.hash)
FALSE = "f" * 64
NOT_HEX = "its hash, or the one before it, is not a SHA-256 in hex"
NO_ENTRY = "entry 2: altered: its content is not an entry"
NO_BASE = "entry 2: forged: it claims to resume the log and does not say from where"
FALSE_BASE = "entry 2: forged: it claims to resume the log from an entry that does not exist"


def resuming(found: list[Any]) -> StoredEntry:
    proof = {"found": found, "nonce": "n"}
    evidence = {"base": {"seq": 1, "hash": ONE.hash}, **proof}
    return row(2, chain.resume(ONE.hash, proof), action=RESUME, evidence=evidence)


DAMAGE: dict[str, tuple[list[StoredEntry], list[str]]] = {
    "none": ([ONE, TWO, THREE], []),
    "no entries": ([], []),
    "no hash": ([ONE, StoredEntry(2, TWO.body, ONE.hash, "x")], [f"entry 2: altered: {NOT_HEX}"]),
    "no previous hash": ([ONE, StoredEntry(2, TWO.body, "X" * 64, TWO.hash)], [f"entry 2: altered: {NOT_HEX}"]),
    "a number twice": (
        [ONE, TWO, row(2, FALSE)],
        ["entry 2: forked: it comes after 2; numbers must be unique and in order"],
    ),
    "an entry twice": (
        [ONE, TWO, ONE],
        ["entry 1: reordered: it comes after 2; numbers must be unique and in order"],
    ),
    "other content": (
        [ONE, StoredEntry(2, b"{}", ONE.hash, TWO.hash)],
        ["entry 2: altered: its content is not what was hashed when it was written"],
    ),
    "no JSON": ([ONE, raw(2, ONE.hash, b"x")], [NO_ENTRY]),
    "no object": ([ONE, raw(2, ONE.hash, b"[]")], [NO_ENTRY]),
    "deep": ([ONE, raw(2, ONE.hash, b"[" * 100_000)], [NO_ENTRY]),
    "no log": ([ONE, raw(2, ONE.hash, b'{"seq":2}')], [NO_ENTRY]),
    "a log that is not text": ([ONE, raw(2, ONE.hash, b'{"chain":1,"seq":2}')], [NO_ENTRY]),
    "a number that is text": ([ONE, raw(2, ONE.hash, b'{"chain":"c","seq":"2"}')], [NO_ENTRY]),
    "a number that is true": ([raw(1, ONE.prev_hash, b'{"chain":"c","seq":true}')], [NO_ENTRY.replace("2", "1")]),
    "the content of another": (
        [ONE, raw(2, ONE.hash, chain.canonical({"chain": "c", "seq": 7}))],
        ["entry 2: reordered: it contains what was written as entry 7"],
    ),
    "another log": ([ONE, row(2, ONE.hash, chain="d")], ["entry 2: forked: it belongs to another log (d)"]),
    "a second successor": (
        [ONE, TWO, row(3, ONE.hash)],
        ["entry 3: forked: it continues entry 1, which already has a successor"],
    ),
    "a second start": (
        [ONE, row(2, ONE.prev_hash)],
        ["entry 2: forked: it continues entry 0, which already has a successor"],
    ),
    "an earlier one rewritten": (
        [ONE, row(2, FALSE)],
        ["entry 1: altered: it was rewritten after entry 2 had been chained to it"],
    ),
    "one missing": ([ONE, row(3, FALSE)], ["entry 2: missing: the log continues at 3; 2 is missing"]),
    "two missing": ([ONE, row(4, FALSE)], ["entry 2: missing: the log continues at 4; 2 to 3 is missing"]),
    "many missing": ([row(9, FALSE)], ["entry 1: missing: the log continues at 9; 1 to 8 is missing"]),
    "a base that is missing": ([ONE, row(2, ONE.hash, action=RESUME)], [NO_BASE]),
    "a base that is not there": (
        [ONE, row(2, ONE.hash, action=RESUME, evidence={"base": {"seq": 5, "hash": FALSE}, "found": []})],
        [FALSE_BASE],
    ),
    "resumed": (
        [ONE, resuming([{"what": "the head"}, {"seq": 2, "hash": FALSE}, 3, {}])],
        [
            f"entry 2: forged: Pointsman found {what} changed by somebody else, and continued from entry 1"
            for what in ("the head", "entry 2", "the log", "the log")
        ],
    ),
    "resumed without a cause": (
        [ONE, resuming([])],
        ["entry 2: forged: Pointsman found the log changed by somebody else, and continued from entry 1"],
    ),
}  # fmt: skip


def examination(*rows: StoredEntry, wanted: tuple[int, ...] = ()) -> Examination:
    made = Examination("c", wanted)
    made.read(rows)
    return made


@pytest.mark.parametrize(("rows", "found"), DAMAGE.values(), ids=DAMAGE)
def test_each_damage_of_an_entry_has_its_finding(rows: list[StoredEntry], found: list[str]) -> None:
    read = examination(*rows)
    assert [str(finding) for finding in read.findings] == found
    assert read.count == len(rows)
    assert (read.last, read.hash) == ((rows[-1].seq, rows[-1].hash) if rows else (0, chain.genesis("c")))


def test_after_a_damaged_entry_the_next_ones_are_examined_too() -> None:
    damaged = StoredEntry(2, b"{}", ONE.hash, TWO.hash)
    read = examination(ONE, damaged, THREE, row(4, THREE.hash, chain="d"), row(6, FALSE))
    assert [(finding.kind, finding.seq) for finding in read.findings] == [
        ("altered", 2),
        ("forked", 4),
        ("missing", 5),
    ]


def test_each_differing_column_is_named() -> None:
    stored = StoredEntry(1, ONE.body, ONE.prev_hash, ONE.hash, {"action": "a", "reason": "b", "outcome": "c"})
    read = Examination("c", columns_of=lambda body: {"action": "x", "outcome": "c"})
    read.read([stored])
    assert [str(found) for found in read.findings] == [
        "entry 1: altered: its column action, reason differs from its content"
    ]

    def lacks(body: Any) -> Any:
        return body["actor"]

    read = Examination("c", columns_of=lacks)
    read.read([stored])
    (found,) = read.findings
    assert "(all: its content is not an entry of this version)" in found.sentence


def test_a_row_that_cannot_be_read_is_a_finding_at_its_number() -> None:
    def rows() -> Any:
        yield ONE
        raise ValueError("month must be in 1..12")

    read = Examination("c")
    read.read(rows())
    (found,) = read.findings
    assert str(found) == (
        "entry 2: altered: its row cannot be read (month must be in 1..12); repair it, "
        "then verify those that follow it"
    )


def test_the_witness_is_called_with_each_readable_entry() -> None:
    seen: list[Any] = []
    read = Examination("c", witness=lambda body: seen.append(body["seq"]))
    read.read([ONE, raw(2, ONE.hash, b"x"), row(3, FALSE)])
    assert seen == [1, 3]


# --- the head and the checkpoints ------------------------------------------------------------------------

HEADS: dict[str, tuple[StoredHead | None, list[str]]] = {
    "sound": (StoredHead("c", 2, TWO.hash), []),
    "gone": (None, ["head: missing: the head row is gone; the log ends at 2"]),
    "of another log": (StoredHead("d", 2, TWO.hash), ["head: altered: the head names another log (d)"]),
    "beyond the end": (
        StoredHead("c", 3, THREE.hash),
        ["entry 3: truncated: the log ends at 2; its head says 3"],
    ),
    "before the end": (
        StoredHead("c", 1, ONE.hash),
        ["entry 2: forged: it lies beyond the head, which says that the log ends at 1"],
    ),
    "at the start": (
        StoredHead("c", 0, chain.genesis("c")),
        ["entry 1: forged: it lies beyond the head, which says that the log ends at 0"],
    ),
    "of another hash": (
        StoredHead("c", 2, FALSE),
        ["entry 2: altered: the head has a different hash for it"],
    ),
    "of another hash before the end": (
        StoredHead("c", 1, FALSE),
        [
            "entry 2: forged: it lies beyond the head, which says that the log ends at 1",
            "entry 1: altered: the head has a different hash for it",
        ],
    ),
    "of another hash at the start": (
        StoredHead("c", 0, FALSE),
        [
            "entry 1: forged: it lies beyond the head, which says that the log ends at 0",
            "entry 0: altered: the head has a different hash for it",
        ],
    ),
}


@pytest.mark.parametrize(("head", "found"), HEADS.values(), ids=HEADS)
def test_each_damage_of_the_head_has_its_finding(head: StoredHead | None, found: list[str]) -> None:
    read = examination(ONE, TWO, wanted=(head.seq,) if head else ())
    read.compare_head(head)
    assert [str(finding) for finding in read.findings] == found


def test_a_lost_head_matters_only_if_something_was_written() -> None:
    for proven, found in ((0, []), (1, ["head: missing: the head row is gone; the log ends at 0"])):
        read = examination()
        read.compare_head(None, proven=proven)
        assert [str(finding) for finding in read.findings] == found
    read = examination()
    read.compare_head(StoredHead("c", 0, chain.genesis("c")), others=2)
    assert [str(finding) for finding in read.findings] == ["head: forged: there are 2 extra head rows"]


def note(seq: int, hash_: str, name: str = "c") -> Note:
    return Note(name, seq, hash_, "2026-01-01T00:00:00.000000Z", "text", "name", "signature")


NOTES: dict[str, tuple[Note, bool, list[str]]] = {
    "sound": (note(1, ONE.hash), True, []),
    "of the last entry": (note(2, TWO.hash), True, []),
    "not signed": (
        note(1, ONE.hash),
        False,
        ["entry 1: bad signature: its checkpoint was not signed by a trusted key"],
    ),
    "of another log": (
        note(1, ONE.hash, "d"),
        True,
        ["entry 1: forked: a checkpoint belongs to another log (d)"],
    ),
    "beyond the end": (
        note(5, FALSE),
        True,
        ["entry 3: truncated: the log ends at 2; a signed checkpoint proves that entry 5 existed"],
    ),
    "of another hash": (
        note(2, FALSE),
        True,
        [
            "entry 2: forked: a signed checkpoint has a different hash for it: it or an earlier one "
            "was rewritten"
        ],
    ),
}


@pytest.mark.parametrize(("given", "signed", "found"), NOTES.values(), ids=NOTES)
def test_each_difference_from_a_checkpoint_has_its_finding(
    given: Note, signed: bool, found: list[str]
) -> None:
    read = examination(ONE, TWO, wanted=(given.seq,))
    read.compare_note(given, signed)
    assert [str(finding) for finding in read.findings] == found
