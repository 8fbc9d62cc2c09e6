"""Rows and values drawn at random, and plain SQL that writes them."""

import random
from collections.abc import Callable
from typing import Any

from django.db import connection

from controlplane.audit.models import Entry

Names = set[str]  # by which `audit verify` may report the change
Change = Callable[[random.Random], Names]  # raises a DatabaseError if the draw cannot be written: draw again


def sql(statement: str, *parameters: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def other_text(rng: random.Random, value: str, length: int = 12) -> str:
    """Return a different text of the same kind."""
    new = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789") for _ in range(length))
    return new if new != value else new + "x"


def other_hash(rng: random.Random) -> str:
    return rng.randbytes(32).hex()


def no_hash(rng: random.Random) -> str:
    """Return something that is not a hash."""
    return rng.choice(
        ["", "zz" * 32, "0" * 63, "G" + "0" * 63, rng.randbytes(32).hex().upper(), "NULL", "é" * 20]
    )


def an_entry(rng: random.Random, **where: Any) -> Entry:
    return rng.choice(list(Entry.objects.filter(**where).order_by("seq")))


def last() -> Entry:
    return Entry.objects.order_by("-seq")[0]


def name(entry: "Entry | int") -> str:
    return f"entry {entry if isinstance(entry, int) else entry.seq}"


def near(entry: Entry) -> Names:
    """Return an entry and its neighbours, where a broken link shows."""
    return {name(entry.seq + step) for step in (-1, 0, 1)}
