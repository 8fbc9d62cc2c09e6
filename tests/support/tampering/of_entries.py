"""Ways to tamper with entries and the head."""

import json
import random
from datetime import timedelta
from typing import Any

from django.db import connection

from controlplane.audit import chain
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.core import clock
from tests.support.tampering.draws import (
    Change,
    Names,
    an_entry,
    last,
    name,
    near,
    no_hash,
    other_hash,
    other_text,
    sql,
)


def body_bytes(rng: random.Random) -> Names:
    entry = an_entry(rng)
    body = bytearray(entry.body)
    place = rng.randrange(len(body))
    body[place] ^= 1 << rng.randrange(8)
    sql("UPDATE audit_entry SET body = %s WHERE id = %s", bytes(body), entry.pk)
    return {name(entry)}


def body_nonsense(rng: random.Random) -> Names:
    entry = an_entry(rng)
    body = rng.choice(
        [b"", b"{}", b"null", b"[1]", b'{"seq":1}', b"\xff\xfe", b"[" * 5000, rng.randbytes(40)]
    )
    sql("UPDATE audit_entry SET body = %s WHERE id = %s", body, entry.pk)
    return {name(entry)}


def body_member(rng: random.Random) -> Names:
    entry = an_entry(rng)
    body = json.loads(bytes(entry.body))
    member = rng.choice(sorted(body))
    body[member] = other_text(rng, str(body[member]))
    sql("UPDATE audit_entry SET body = %s WHERE id = %s", chain.canonical(body), entry.pk)
    return {name(entry)}


def body_and_hash(rng: random.Random) -> Names:
    entry = an_entry(rng)
    body = chain.canonical(json.loads(bytes(entry.body)) | {"reason": other_text(rng, entry.reason)})
    values = body, chain.link(entry.prev_hash, body), entry.pk
    sql("UPDATE audit_entry SET body = %s, hash = %s WHERE id = %s", *values)
    return near(entry)


def nonsense_hashed(rng: random.Random) -> Names:
    entry = an_entry(rng)
    body = rng.choice(
        [b"{}", b"null", b"[]", b'{"chain":1,"seq":1}', b'{"chain":"x","seq":true}', b"no json"]
    )
    sql(
        "UPDATE audit_entry SET body = %s, hash = %s WHERE id = %s",
        body,
        chain.link(entry.prev_hash, body),
        entry.pk,
    )
    return near(entry)


def entry_hash(rng: random.Random) -> Names:
    entry = an_entry(rng)
    sql("UPDATE audit_entry SET hash = %s WHERE id = %s", other_hash(rng), entry.pk)
    return near(entry)


def entry_no_hash(rng: random.Random) -> Names:
    entry, column = an_entry(rng), rng.choice(["hash", "prev_hash"])
    sql(f"UPDATE audit_entry SET {column} = %s WHERE id = %s", no_hash(rng), entry.pk)
    return near(entry)


def entry_previous(rng: random.Random) -> Names:
    entry = an_entry(rng)
    sql("UPDATE audit_entry SET prev_hash = %s WHERE id = %s", other_hash(rng), entry.pk)
    return near(entry)


def entry_number(rng: random.Random) -> Names:
    entry = an_entry(rng)
    number = rng.choice(
        [0, -1, -rng.randrange(1, 10**9), last().seq + rng.randrange(1, 10**6), 2**53 + 5, 2**62]
    )
    sql("UPDATE audit_entry SET seq = %s WHERE id = %s", number, entry.pk)
    return {name(entry), name(number), "entry 1", *near(entry)}


def entry_time(rng: random.Random) -> Names:
    entry = an_entry(rng)
    at = entry.at + timedelta(seconds=rng.choice([-1, 1]) * rng.randrange(1, 10**7))
    sql(
        "UPDATE audit_entry SET at = %s WHERE id = %s", connection.ops.adapt_datetimefield_value(at), entry.pk
    )
    return {name(entry)}


def entry_column(column: str) -> Change:
    def change(rng: random.Random) -> Names:
        entry = an_entry(rng)
        new = other_text(rng, getattr(entry, column), 6)
        sql(f"UPDATE audit_entry SET {column} = %s WHERE id = %s", new, entry.pk)
        return {name(entry)}

    return change


def one_gone(rng: random.Random) -> Names:
    entry = an_entry(rng)
    sql("DELETE FROM audit_entry WHERE id = %s", entry.pk)
    return {name(entry)}


def some_gone(rng: random.Random) -> Names:
    low = rng.randrange(1, last().seq)
    high = rng.randrange(low, last().seq)
    sql("DELETE FROM audit_entry WHERE seq BETWEEN %s AND %s", low, high)
    return {name(low)}


def end_gone(rng: random.Random) -> Names:
    kept = rng.randrange(0, last().seq)
    sql("DELETE FROM audit_entry WHERE seq > %s", kept)
    return {name(kept + 1)}


def end_gone_and_head(rng: random.Random) -> Names:
    """Only up to a checkpoint: no signature covers the entries after the last one."""
    signed = Checkpoint.objects.order_by("-seq")[0].seq
    kept = rng.randrange(1, signed)
    entry = Entry.objects.get(seq=kept)
    sql("DELETE FROM audit_entry WHERE seq > %s", kept)
    sql("UPDATE audit_head SET seq = %s, hash = %s", kept, entry.hash)
    return {name(kept + 1)}


def all_gone(rng: random.Random) -> Names:
    sql("DELETE FROM audit_entry")
    return {"entry 1"}


def all_gone_and_head(rng: random.Random) -> Names:
    sql("DELETE FROM audit_entry")
    sql("DELETE FROM audit_head")
    return {"entry 1", "head"}


def all_begun_anew(rng: random.Random) -> Names:
    sql("DELETE FROM audit_entry")
    made = other_text(rng, "", 32)
    sql("UPDATE audit_head SET chain = %s, seq = 0, hash = %s", made, chain.genesis(made))
    return {name(row.seq) for row in Checkpoint.objects.all()} | {"entry 1"}


def two_swapped(rng: random.Random) -> Names:
    one, two = rng.sample(range(1, last().seq + 1), 2)
    for old, new in ((one, -7), (two, one), (-7, two)):
        sql("UPDATE audit_entry SET seq = %s WHERE seq = %s", new, old)
    return {name(one), name(two)}


def written_anew(rng: random.Random) -> Names:
    """Rewrite everything from one entry on, including hashes and head. What no checkpoint covers cannot be detected."""
    signed = Checkpoint.objects.order_by("-seq")[0].seq
    first = rng.randrange(1, signed + 1)
    previous = Entry.objects.get(seq=first).prev_hash
    for entry in Entry.objects.filter(seq__gte=first).order_by("seq"):
        body = chain.canonical(json.loads(bytes(entry.body)) | {"reason": "written anew"})
        new = chain.link(previous, body)
        sql(
            "UPDATE audit_entry SET body = %s, prev_hash = %s, hash = %s, reason = 'written anew' WHERE id = %s",
            body, previous, new, entry.pk,
        )  # fmt: skip
        previous = new
    sql("UPDATE audit_head SET hash = %s", previous)
    return {name(row.seq) for row in Checkpoint.objects.filter(seq__gte=first)}


def insert_entry(seq: int, body: bytes, previous: str, hash_: str) -> None:
    Entry.objects.create(
        seq=seq, body=body, prev_hash=previous, hash=hash_, at=clock.now(), actor_kind="user", actor_id="1",
        actor_label="x", action="x", target_kind="x", target_id="x", outcome="done",
    )  # fmt: skip


def forged_behind(rng: random.Random) -> Names:
    """A well-formed entry after the head, as an expert would write it."""
    head = Head.objects.get()
    body = chain.canonical(
        json.loads(bytes(last().body)) | {"seq": head.seq + 1, "reason": other_text(rng, "")}
    )
    insert_entry(head.seq + 1, body, head.hash, chain.link(head.hash, body))
    return {name(head.seq + 1)}


def nonsense_behind(rng: random.Random) -> Names:
    head = Head.objects.get()
    seq = head.seq + rng.choice([1, 1, 2, rng.randrange(1, 10**6)])
    previous = rng.choice([head.hash, other_hash(rng), no_hash(rng)])
    insert_entry(seq, rng.randbytes(9), previous, rng.choice([other_hash(rng), no_hash(rng)]))
    return {name(seq), name(head.seq + 1)}


def far_behind(rng: random.Random) -> Names:
    head = Head.objects.get()
    seq = rng.choice([2**53 - 1, 2**53, 2**62, 2**63 - 1, head.seq + 10**7])
    insert_entry(seq, b"{}", rng.choice([head.hash, other_hash(rng)]), other_hash(rng))
    return {name(seq), name(head.seq + 1)}


def before_the_first(rng: random.Random) -> Names:
    seq = rng.choice([0, -1, -(2**60)])
    head = Head.objects.get()
    insert_entry(seq, b"{}", rng.choice([head.hash, other_hash(rng)]), other_hash(rng))
    return {name(seq)}


def replayed(rng: random.Random) -> Names:
    """An old entry again, at the end."""
    entry, head = an_entry(rng), Head.objects.get()
    body = bytes(entry.body)
    insert_entry(head.seq + 1, body, head.hash, chain.link(head.hash, body))
    sql("UPDATE audit_head SET seq = %s, hash = %s", head.seq + 1, chain.link(head.hash, body))
    return {name(head.seq + 1)}


def resumed_by_hand(rng: random.Random) -> Names:
    """An entry that claims to resume the log, so that the entries it cuts off appear forged."""
    base = an_entry(rng, seq__lt=last().seq)
    head = Head.objects.get()
    proof: dict[str, Any] = {"found": [], "nonce": "n"}
    body = chain.canonical(
        json.loads(bytes(last().body))
        | {
            "seq": head.seq + 1,
            "action": "audit.resume",
            "evidence": {"base": {"seq": base.seq, "hash": base.hash}, **proof},
        }
    )
    previous = chain.resume(base.hash, proof)
    insert_entry(head.seq + 1, body, previous, chain.link(previous, body))
    sql("UPDATE audit_head SET seq = %s, hash = %s", head.seq + 1, chain.link(previous, body))
    return {name(head.seq + 1)}


# --- head --------------------------------------------------------------------------------------------


def head_gone(rng: random.Random) -> Names:
    sql("DELETE FROM audit_head")
    return {"head"}


def head_number(rng: random.Random) -> Names:
    seq = last().seq
    new = rng.choice([0, -5, seq - rng.randrange(1, seq), seq + rng.randrange(1, 10**6), 2**62])
    sql("UPDATE audit_head SET seq = %s", new)
    return {name(new), name(new + 1), name(seq), name(seq + 1)}


def head_hash(rng: random.Random) -> Names:
    sql("UPDATE audit_head SET hash = %s", rng.choice([other_hash(rng), no_hash(rng)]))
    return {name(last())}


def head_chain(rng: random.Random) -> Names:
    sql("UPDATE audit_head SET chain = %s", other_text(rng, "", 20))
    return {"head"}


def head_twice(rng: random.Random) -> Names:
    Head.objects.create(chain=other_text(rng, ""), seq=rng.randrange(100), hash=other_hash(rng))
    return {"head"}


OF_ENTRIES: dict[str, Change] = {
    "entry: one bit of its content": body_bytes,
    "entry: nonsense for its content": body_nonsense,
    "entry: a member of its content": body_member,
    "entry: content and hash": body_and_hash,
    "entry: nonsense, hashed": nonsense_hashed,
    "entry: its hash": entry_hash,
    "entry: a hash that is none": entry_no_hash,
    "entry: the hash before it": entry_previous,
    "entry: its number": entry_number,
    "entry: its time": entry_time,
    **{
        f"entry: column {column}": entry_column(column)
        for column in (
            "actor_kind", "actor_id", "actor_label", "action", "target_kind", "target_id", "environment",
            "workload", "outcome", "reason",
        )
    },
    "entries: one gone": one_gone,
    "entries: some gone": some_gone,
    "entries: the end gone": end_gone,
    "entries: the end gone, the head too": end_gone_and_head,
    "entries: all gone": all_gone,
    "entries: all gone, the head too": all_gone_and_head,
    "entries: all gone, another log begun": all_begun_anew,
    "entries: two swapped": two_swapped,
    "entries: written anew from one on": written_anew,
    "entries: forged behind the head": forged_behind,
    "entries: nonsense behind the head": nonsense_behind,
    "entries: far behind the head": far_behind,
    "entries: before the first": before_the_first,
    "entries: an old one once more": replayed,
    "entries: a resumption by hand": resumed_by_hand,
    "head: gone": head_gone,
    "head: its number": head_number,
    "head: its hash": head_hash,
    "head: its chain": head_chain,
    "head: a second one": head_twice,
}  # fmt: skip
