"""Every value of every body, form and query is replaced by an unexpected one: accepted or a 4xx, never a 5xx.

The requests come from the matrix and are granted unchanged, so a refusal is caused by the value. One sample is taken
here; each round of `make fuzz` takes another.
"""

import json
import os
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from django.db import transaction
from django.test import Client

from tests.trust.matrix import credentials, world
from tests.trust.matrix.asking import CREDENTIALS, ROWS, is_page
from tests.trust.matrix.needs import Row

pytestmark = pytest.mark.django_db
DRAWN = 600
SEED = os.environ.get("FUZZ_SEED", "some")

TEXTS = [
    "", " ", "\u200b", "x" * 5_000, "\u0663", "../..", "%s{0}", "' OR 1=1 --", "2026-02-30", "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:00", "nan", "Infinity", "1e999", "0x10", "production\n",
    "\U0001d54f" * 99,
    "9" * 30, "9" * 5_000, "-1", "1.5", "None", "null", "[]", "00000000-0000-0000-0000-000000000000", "\ud7ff\uffff",
]  # fmt: skip
VALUES: list[Any] = [
    *TEXTS, None, True, 0, -1, 2**31, 2**63, 2**64, 10**30, -(10**400), 1e308, 5e-324, 0.1, [], {}, [[]], [None], [{}],
    {"a": {"b": []}}, ["a"] * 1_000, {"": None},
]  # fmt: skip
BYTES = [b"\x00", b"\xff\xfe", b"{", b"[]", b"null", b'{"a":NaN}', b'{"reason":"\\u0000"}', b'{"reason":"\\ud800"}',
         b'{"reason":1,"reason":2}', b"[" * 100_000, b'{"a":' * 5_000,
         b"\xef\xbb\xbf{}", b"", b"9" * 5_000]  # fmt: skip
TYPES = [
    "application/json",
    "text/plain",
    "",
    "application/json; charset=utf-16",
    "multipart/form-data",
    "x" * 500,
]
QUERIES = [
    "cursor", "limit", "page", "show", "state", "workload", "environment", "days", "owner", "evaluation", "look",
    "absolute",
    "format", "candidate", "before", "after", "actor", "action", "target", "since", "until", "actor_id", "reason",
    "open", "q",
]  # fmt: skip


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield from leaves(part, (*at, name))


def replaced(body: Any, at: tuple[Any, ...], value: Any) -> Any:
    body = deepcopy(body)
    holder = body
    for name in at[:-1]:
        holder = holder[name]
    holder[at[-1]] = value
    return body


def hostile(row: Row, path: str, body: Any, rng: random.Random) -> Any:
    """Return (path, body, content type) with one value of the request replaced."""
    if row.method == "GET" or rng.random() < 0.1:
        query = f"{rng.choice(QUERIES)}={rng.choice(TEXTS)}".encode("utf-8", "surrogatepass")
        escaped = "".join(f"%{byte:02x}" for byte in query.partition(b"=")[2])
        return (
            f"{path}{'&' if '?' in path else '?'}{query.partition(b'=')[0].decode()}={escaped}",
            body,
            TYPES[0],
        )
    if not isinstance(body, dict) or not body or rng.random() < 0.1:
        return path, rng.choice(BYTES), rng.choice(TYPES)
    at = rng.choice(list(leaves(body)))
    value = rng.choice(TEXTS if is_page(row) else VALUES)
    return path, replaced(body, at, value), TYPES[0]


def sent(client: Client, row: Row, path: str, body: Any, kind: str) -> Any:
    if is_page(row):
        form = body if isinstance(body, dict) else {}
        return (
            client.generic(row.method, f"/console/{path}")
            if row.method == "GET"
            else client.post(f"/console/{path}", form)
        )
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return client.generic(
        row.method, f"/api/v1/{path}", content, content_type=kind, headers={"If-Match": "*"}
    )


def test_no_value_causes_a_server_error() -> None:
    made, rng, failed = world.make(), random.Random(SEED), []
    caller = credentials.make(next(one for one in CREDENTIALS if one.name == "superuser"), made.team)
    for _ in range(DRAWN):
        row = rng.choice(ROWS)
        with transaction.atomic():
            path, body = row.request(made)
            path, body, kind = hostile(row, path, body, rng)
            answer = sent(caller.client, row, path, body, kind)
            transaction.set_rollback(True)
        if answer.status_code >= 500:
            failed.append(f"{row.method} {path[:120]} {str(body)[:200]}: {answer.status_code}")
        elif answer.status_code >= 400 and not is_page(row) and "problem" not in answer["Content-Type"]:
            failed.append(f"{row.method} {path[:120]} {str(body)[:200]}: {answer['Content-Type']}")
    print(f"seed {SEED}: {DRAWN} hostile values")
    assert failed == []
