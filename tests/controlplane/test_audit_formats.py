"""How values are written into the log, and the text of a signed checkpoint. No database."""

import base64
import uuid
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controlplane.audit import chain, notes

# --- values --------------------------------------------------------------------------------------------


class Colour(Enum):
    RED = Decimal("0.10")


class Mode(StrEnum):
    FULL = "full"


ID = uuid.UUID(int=7)
PLAIN: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (False, False),
    (0, 0),
    (2**53 - 1, 2**53 - 1),
    (1 - 2**53, 1 - 2**53),
    (2**53, "9007199254740992"),
    (-(2**53), "-9007199254740992"),
    (0.1, 0.1),
    (float("nan"), "nan"),
    (float("-inf"), "-inf"),
    ("text", "text"),
    ("nul \0, half \ud83d, whole \U0001f600", "nul \ufffd, half \ufffd, whole \U0001f600"),
    (Decimal("1.50"), "1.50"),
    (date(2026, 3, 1), "2026-03-01"),
    (datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC), "2026-03-01T12:00:00.000005Z"),
    (datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2026-02-28T23:00:00.000000Z"),
    (ID, "00000000-0000-0000-0000-000000000007"),
    (Colour.RED, "0.10"),
    (Mode.FULL, "full"),
    ([ID, (Decimal(1), None)], [str(ID), ["1", None]]),
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({8, 1}), [1, 8]),
    (OrderedDict({ID: ID, 1: {"x": (1,)}, "\0": 2}), {str(ID): str(ID), "1": {"x": [1]}, "\ufffd": 2}),
]


@pytest.mark.parametrize(("value", "plain"), PLAIN, ids=lambda value: repr(value)[:40])
def test_each_type_has_one_representation(value: Any, plain: Any) -> None:
    found = chain.plain(value)
    assert (found, type(found)) == (plain, type(plain))
    assert chain.digest(value) == chain.digest(plain)


DIFFERENCES: list[tuple[Any, Any, list[dict[str, Any]]]] = [
    ({}, {}, []),
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1}, {"a": 2}, [{"path": "/a", "before": 1, "after": 2}]),
    ({"a": 1}, {"a": True}, [{"path": "/a", "before": 1, "after": True}]),
    ({"a": False}, {"a": 0}, [{"path": "/a", "before": False, "after": 0}]),
    ({"a": 1}, {}, [{"path": "/a", "before": 1}]),
    ({}, {"a": None}, [{"path": "/a", "after": None}]),
    (
        {"b": {"x": 1, "y": 2}, "a": [1]},
        {"b": {"x": 1, "y": 3}, "a": [1, 2]},
        [{"path": "/a", "before": [1], "after": [1, 2]}, {"path": "/b/y", "before": 2, "after": 3}],
    ),
    ({"a": {"x": 1}}, {"a": 1}, [{"path": "/a", "before": {"x": 1}, "after": 1}]),
    ({"a/b": 1, "~": 1}, {}, [{"path": "/a~1b", "before": 1}, {"path": "/~0", "before": 1}]),
]


@pytest.mark.parametrize(("before", "after", "changes"), DIFFERENCES)
def test_a_difference_lists_each_changed_place(before: Any, after: Any, changes: Any) -> None:
    assert chain.difference(before, after) == changes


HASHES = [
    ("0" * 64, True),
    ("0123456789abcdef" * 4, True),
    ("A" * 64, False),
    ("0" * 63, False),
    ("0" * 65, False),
    ("0" * 64 + "\n", False),
    ("\u0660" * 64, False),
    (b"0" * 64, False),
    (None, False),
]


@pytest.mark.parametrize(("text", "is_hash"), HASHES, ids=lambda value: repr(value)[:24])
def test_only_64_lower_case_digits_are_a_hash(text: Any, is_hash: bool) -> None:
    assert chain.is_hash(text) is is_hash


# --- checkpoints ---------------------------------------------------------------------------------------

KEY, OTHER = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
PUBLIC, OTHER_PUBLIC = (key.public_key().public_bytes_raw() for key in (KEY, OTHER))
HASH = "ab" * 32
AT = "2026-03-01T12:00:00.000000Z"
NOTE = notes.write("c", 7, HASH, AT, sign=KEY.sign, public=PUBLIC)


def test_a_note_reads_as_it_was_written() -> None:
    (read,) = notes.read_all(NOTE)
    assert (read.chain, read.seq, read.hash, read.at) == ("c", 7, HASH, AT)
    assert read.name == "pointsman.audit/c"
    assert read.text == f"pointsman.audit/c\n7\n{base64.b64encode(bytes.fromhex(HASH)).decode()}\n{AT}\n"
    assert (read.whole, notes.rest(NOTE)) == (NOTE, "")
    assert len(base64.b64decode(read.signature)) == 4 + 64


def test_a_file_may_hold_several_notes_and_something_else() -> None:
    second = notes.write("c", 8, HASH, AT, sign=KEY.sign, public=PUBLIC)
    text = f"before\n{NOTE}\n{second}\nafter\n"
    assert [note.seq for note in notes.read_all(text)] == [7, 8]
    assert notes.rest(text).split() == ["before", "after"]
    assert notes.read_all("") == [] and notes.rest("\n\n") == ""


def test_a_hash_that_is_not_base64_is_none() -> None:
    text = NOTE.replace(base64.b64encode(bytes.fromhex(HASH)).decode(), "a*b")
    (read,) = notes.read_all(text)
    assert read.hash == ""
    assert not notes.is_signed(read, [PUBLIC])


@pytest.mark.parametrize(
    ("keys", "signed"),
    [([PUBLIC], True), ([OTHER_PUBLIC, PUBLIC], True), ([OTHER_PUBLIC], False), ([], False)],
)
def test_one_of_the_keys_must_have_signed(keys: list[bytes], signed: bool) -> None:
    (read,) = notes.read_all(NOTE)
    assert notes.is_signed(read, keys) is signed


def test_a_signature_of_another_text_or_key_is_none() -> None:
    (read,) = notes.read_all(NOTE.replace("\n7\n", "\n8\n"))
    assert not notes.is_signed(read, [PUBLIC])
    (read,) = notes.read_all(notes.write("c", 7, HASH, AT, sign=OTHER.sign, public=PUBLIC))
    assert not notes.is_signed(read, [PUBLIC, PUBLIC])
    (read,) = notes.read_all(NOTE.replace(read.signature, "a*b").rpartition(" ")[0] + " a*b\n")
    assert not notes.is_signed(read, [PUBLIC])
