"""The log continues after rows that somebody inserted or changed, and says what was found."""

import json
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.audit import chain, checkpoints, entries, log, verification
from controlplane.audit.models import Entry, Head
from controlplane.audit.verify import RESUME
from controlplane.core.actors import SYSTEM
from controlplane.core.context import request_context
from tests.support import append_only

pytestmark = pytest.mark.django_db
FALSE = "f" * 64


def write() -> Entry:
    with transaction.atomic():
        return log.record(actor=SYSTEM, action="test.write", target=("thing", "one"))


def insert(seq: int, body: bytes, previous: str = "", hash_: str = "") -> Entry:
    """Insert a row as somebody with access to the database would, with a correct hash unless told otherwise."""
    previous = previous or chain.digest(["before", seq])
    columns = dict.fromkeys(("actor_kind", "actor_id", "actor_label", "action", "target_kind"), "x")
    now = Entry.objects.order_by("seq").values_list("at", flat=True).first()
    return Entry.objects.create(
        seq=seq, body=body, prev_hash=previous, hash=hash_ or chain.link(previous, body),
        at=now or "2026-01-01T00:00:00Z", target_id="x", outcome="done", **columns,
    )  # fmt: skip


def resumed() -> dict[str, Any]:
    """Write one more entry. Return the content of the one that continues the log before it."""
    with request_context("r-1", "api 10.0.0.7"):
        newest = write()
    (entry,) = Entry.objects.filter(action=RESUME)
    assert (newest.seq, newest.prev_hash) == (entry.seq + 1, entry.hash)
    body: dict[str, Any] = json.loads(bytes(entry.body))
    assert entry.prev_hash == chain.resume(
        body["evidence"]["base"]["hash"],
        {"found": body["evidence"]["found"], "nonce": body["evidence"]["nonce"]},
    )
    return body


def wrong_head(name: str, seq: str, hash_: str) -> dict[str, Any]:
    return {"what": "the head", "said": {"chain": name, "seq": seq, "hash": hash_}}


def test_the_continuation_has_all_members() -> None:
    first = write()
    name = Head.objects.get().chain
    Head.objects.update(hash=FALSE)
    body = resumed()
    assert len(bytes.fromhex(body["evidence"].pop("nonce"))) >= 16
    assert body.pop("ts") >= chain.timestamp(first.at)
    assert body == {
        "v": 1,
        "chain": name,
        "seq": 2,
        "actor": {"kind": "system", "id": "pointsman", "label": "Pointsman", "user_id": None},
        "action": "audit.resume",
        "target": {"kind": "audit", "id": name},
        "environment": "",
        "workload": "",
        "reason": "Rows of the log are not as Pointsman wrote them; the log continues after them.",
        "outcome": "done",
        "diff": [],
        "before_sha256": None,
        "after_sha256": None,
        "evidence": {"base": {"seq": 1, "hash": first.hash}, "found": [wrong_head(name, "1", FALSE)]},
        "approvals": None,
        "request_id": "r-1",
        "source": "api 10.0.0.7",
    }
    assert [str(found) for found in verification.verify(with_file=False).findings] == [
        "entry 2: forged: Pointsman found the head changed by somebody else, and continued from entry 1"
    ]


def test_it_says_what_the_lost_head_would_have_named() -> None:
    """A new head row names a new log of no entries. The log keeps its id."""
    last = write()
    name = Head.objects.get().chain
    Head.objects.all().delete()
    body = resumed()
    (found,) = body["evidence"]["found"]
    said = found["said"]
    assert (found["what"], said["seq"], said["hash"]) == ("the head", "0", chain.genesis(said["chain"]))
    assert said["chain"] != name
    assert (body["chain"], body["seq"]) == (name, 2)
    assert body["evidence"]["base"] == {"seq": 1, "hash": last.hash}
    head = Head.objects.get()
    assert (head.pk, head.chain) == (1, name), "the key of the head in every existing database"


def test_it_lists_the_rows_after_the_last_entry() -> None:
    """The first twenty, and continues after the last."""
    first = write()
    made = [insert(seq, b"{}") for seq in range(3, 26)]
    body = resumed()
    assert body["seq"] == 26
    assert body["evidence"]["base"] == {"seq": 1, "hash": first.hash}
    assert body["evidence"]["found"] == [{"seq": row.seq, "hash": row.hash} for row in made[:20]]


def test_it_continues_after_the_number_that_the_head_of_an_empty_log_names() -> None:
    """Entries up to this number may have existed."""
    name = "c" * 32
    Head.objects.create(pk=entries.HEAD, chain=name, seq=5_000_000, hash=FALSE)
    body = resumed()
    assert (body["chain"], body["seq"]) == (name, 5_000_001)
    assert body["evidence"]["base"] == {"seq": 0, "hash": chain.genesis(name)}
    assert body["evidence"]["found"] == [wrong_head(name, "5000000", FALSE)]


def test_a_row_that_continues_a_new_log_is_not_the_first_entry() -> None:
    """Nothing was written yet. Somebody inserted a row that claims the hash before the first entry."""
    name = "c" * 32
    Head.objects.create(pk=entries.HEAD, chain=name, seq=0, hash=chain.genesis(name))
    insert(2, b"{}", chain.genesis(name))
    assert resumed()["seq"] == 3


@pytest.mark.parametrize("seq", [-(2**63), -1, 0, 2**53, 2**63 - 1])
@pytest.mark.parametrize("named", [True, False], ids=["the head names it", "the head names nothing"])
def test_it_never_continues_from_a_number_that_pointsman_does_not_write(seq: int, named: bool) -> None:
    """RFC 8785 has no exact numbers from 2**53 on, and the database none from 2**63 on."""
    first = write()
    name = Head.objects.get().chain
    row = insert(seq, b'{"chain":"%s","seq":%d}' % (name.encode(), seq))
    Head.objects.update(seq=seq, hash=row.hash if named else FALSE)
    body = resumed()
    assert body["evidence"]["base"] == {"seq": 1, "hash": first.hash}
    assert body["seq"] == 2
    assert write().seq == 4


@pytest.mark.parametrize("seq", [-(2**63), -1, 2**53 - 2, 2**53, 2**63 - 1])
def test_no_number_in_the_head_of_an_empty_log_stops_it(seq: int) -> None:
    Head.objects.create(pk=entries.HEAD, chain="c" * 32, seq=seq, hash=FALSE)
    body = resumed()
    assert body["seq"] == 1
    assert body["evidence"]["found"] == [wrong_head("c" * 32, str(seq), FALSE)]


NOT_ITSELF: dict[str, dict[str, Any]] = {
    "another number": {"body": b'{"chain":"c","seq":3}'},
    "no number": {"body": b'{"chain":"c"}'},
    "no log": {"body": b'{"seq":2}'},
    "a log that is not text": {"body": b'{"chain":1,"seq":2}'},
    "no object": {"body": b"[2]"},
    "no JSON": {"body": b"{"},
    "another hash": {"body": b'{"chain":"c","seq":2}', "hash_": FALSE},
    "a hash that is none": {"body": b'{"chain":"c","seq":2}', "hash_": "x"},
    "a previous hash that is none": {"body": b'{"chain":"c","seq":2}', "previous": "x", "hash_": FALSE},
}


@pytest.mark.parametrize("row", NOT_ITSELF.values(), ids=NOT_ITSELF)
def test_it_continues_only_from_an_entry_that_is_what_its_hash_says(row: dict[str, Any]) -> None:
    first = write()
    inserted = insert(2, **row)
    Head.objects.update(seq=2, hash=inserted.hash)
    body = resumed()
    assert body["evidence"]["base"] == {"seq": 1, "hash": first.hash}
    assert body["seq"] == 3
    assert body["evidence"]["found"][1:] == [{"seq": 2, "hash": inserted.hash}]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL checks a column's type")
@pytest.mark.parametrize("column", ["seq", "hash", "chain"])
def test_each_column_of_the_head_must_be_of_its_type(column: str) -> None:
    """Otherwise it names no entry: verification says so, nothing is signed, and the log continues."""
    write()
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE audit_head SET {column} = %s", [b"\xff"])
    head = Head.objects.get()
    assert not entries.is_readable(head)
    assert checkpoints.make() is None
    found = [str(one) for one in verification.verify(with_file=False).findings]
    assert found[0] == "head: altered: the head row cannot be read"
    assert resumed()["evidence"]["found"] == [wrong_head("", "0", "")]
    assert entries.is_readable(Head.objects.get())


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL checks a column's type")
def test_text_in_place_of_an_entrys_bytes_is_not_an_entry() -> None:
    first, second = write(), write()
    with append_only.lifted(), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_entry SET body = %s WHERE seq = 2", [bytes(second.body).decode()])
    assert resumed()["evidence"]["base"] == {"seq": 1, "hash": first.hash}
