"""Ways to tamper with checkpoints, in rows and in the file."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection

from controlplane.audit import checkpoints, notes
from controlplane.audit.models import Checkpoint, Head
from tests.support.tampering.draws import (
    Change,
    Names,
    last,
    name,
    no_hash,
    other_hash,
    sql,
)


def a_checkpoint(rng: random.Random) -> Checkpoint:
    return rng.choice(list(Checkpoint.objects.order_by("seq")))


def of(checkpoint: Checkpoint) -> Names:
    return {f"checkpoint {checkpoint.seq}", name(checkpoint.seq)}


def checkpoint_gone(rng: random.Random) -> Names:
    row = a_checkpoint(rng)
    sql("DELETE FROM audit_checkpoint WHERE id = %s", row.pk)
    return of(row)


def checkpoints_gone(rng: random.Random) -> Names:
    names = {found for row in Checkpoint.objects.all() for found in of(row)}
    sql("DELETE FROM audit_checkpoint")
    return names


def checkpoint_column(column: str) -> Change:
    def change(rng: random.Random) -> Names:
        row = a_checkpoint(rng)
        new: Any = {
            "seq": rng.choice([row.seq + 10**6, 2**62, -1, row.seq + 1]),
            "hash": rng.choice([other_hash(rng), no_hash(rng)]),
            "at": connection.ops.adapt_datetimefield_value(
                row.at + timedelta(seconds=rng.randrange(1, 10**6))
            ),
            "note": rng.choice(
                ["", "x", row.note + "y", row.note * 2, row.note.replace("\n\n", "\n"), "\ud7ff"]
            ),
        }[column]
        sql(f"UPDATE audit_checkpoint SET {column} = %s WHERE id = %s", new, row.pk)
        return of(row) | ({f"checkpoint {new}", name(new)} if column == "seq" else set())

    return change


def checkpoint_signature(rng: random.Random) -> Names:
    row = a_checkpoint(rng)
    at = rng.randrange(len(row.note) - 60, len(row.note) - 4)
    other = "A" if row.note[at] != "A" else "B"
    sql(
        "UPDATE audit_checkpoint SET note = %s WHERE id = %s",
        row.note[:at] + other + row.note[at + 1 :],
        row.pk,
    )
    return of(row)


def checkpoint_forged(rng: random.Random) -> Names:
    """A forged row that would prevent the next checkpoint if it were trusted."""
    seq = rng.choice([last().seq, last().seq + 1, 2**40, 2**62])
    note = rng.choice(["", "note", _foreign_note(rng, Head.objects.get().chain, seq)])
    Checkpoint.objects.create(seq=seq, hash=other_hash(rng), note=note, at=datetime(2031, 1, 1, tzinfo=UTC))
    return {f"checkpoint {seq}", name(seq)}


def _foreign_note(rng: random.Random, chain_id: str, seq: int) -> str:
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    return notes.write(
        chain_id, seq, other_hash(rng), "2031-01-01T00:00:00.000000Z", sign=key.sign, public=public
    )


def file_gone(rng: random.Random) -> Names:
    checkpoints.checkpoint_file().unlink()
    return {found for row in Checkpoint.objects.all() for found in of(row)}


def file_cut(rng: random.Random) -> Names:
    path = checkpoints.checkpoint_file()
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data) - 2)])
    return {"checkpoint file"} | {found for row in Checkpoint.objects.all() for found in of(row)}


def file_byte(rng: random.Random) -> Names:
    path = checkpoints.checkpoint_file()
    data = bytearray(path.read_bytes())
    place = rng.choice([i for i, byte in enumerate(data) if byte not in b"\n"])
    data[place] ^= 1 << rng.randrange(7)
    path.write_bytes(data)
    return {"checkpoint file"} | {found for row in Checkpoint.objects.all() for found in of(row)}


def file_more(rng: random.Random) -> Names:
    path = checkpoints.checkpoint_file()
    seq = rng.randrange(1, 10**6)
    text = rng.choice(["nonsense\n", _foreign_note(rng, Head.objects.get().chain, seq)])
    path.write_text(path.read_text() + text)
    return {"checkpoint file", name(seq), f"checkpoint {seq}"}


def file_binary(rng: random.Random) -> Names:
    path = checkpoints.checkpoint_file()
    path.write_bytes(path.read_bytes() + rng.randbytes(50) + b"\xff\x00")
    return {"checkpoint file"}


OF_CHECKPOINTS: dict[str, Change] = {
    "checkpoint: gone": checkpoint_gone,
    "checkpoints: all rows gone": checkpoints_gone,
    **{f"checkpoint: its {column}": checkpoint_column(column) for column in ("seq", "hash", "at", "note")},
    "checkpoint: its signature": checkpoint_signature,
    "checkpoint: a forged one": checkpoint_forged,
    "file: gone": file_gone,
    "file: cut": file_cut,
    "file: one bit": file_byte,
    "file: more in it": file_more,
    "file: binary rubbish": file_binary,
}  # fmt: skip
