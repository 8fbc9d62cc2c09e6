"""Append entries to the chain. No other code writes an entry or the head.

It trusts neither. An entry inserted after the head, a head that names no entry, or a missing head would block every
write, since entries are unique and no write happens without its entry. In such a case it first appends an entry that
reports what was found and continues after a special hash (`chain.resume`); `audit verify` reports it.
"""

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from django.db import connection
from django.db.models import Max, Q

from controlplane.audit import chain
from controlplane.audit.models import Entry, Head
from controlplane.audit.verify import RESUME
from controlplane.core import clock, context
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.ids import uuid7

HEAD = 1  # the primary key of the only head row
_NEAR = 1_000_000  # rows up to this far after the head can block the next entry
_TOO_FAR = 2**52  # no log of Pointsman's gets here; twice as far, RFC 8785 cannot write a number exactly
_LISTED = 20  # how many foreign rows are listed one by one
_listeners: list[Callable[[Entry, Mapping[str, Any]], object]] = []


def record(
    *,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    environment: str = "",
    workload: str = "",
    reason: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    evidence: Any = None,
    approvals: Any = None,
    outcome: str = "done",
) -> Entry:
    """Append one entry to the chain, in the caller's transaction. Call it last.

    `target` is (kind, id). Only the difference between `before` and `after` is stored, with the SHA-256 of both. The
    head row stays locked until the commit. Entries are therefore numbered in commit order, and all other writers wait
    for whatever the caller does after this call.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("record an audit entry in the transaction of its change: use transaction.atomic")
    before, after = chain.plain(before), chain.plain(after)
    body = {
        "actor": {"kind": actor.kind, "id": actor.id, "label": actor.label, "user_id": actor.user_id},
        "action": action,
        "target": {"kind": target[0], "id": target[1]},
        "environment": environment,
        "workload": workload,
        "reason": reason,
        "outcome": outcome,
        "diff": chain.difference(before or {}, after or {}),
        "before_sha256": None if before is None else chain.digest(before),
        "after_sha256": None if after is None else chain.digest(after),
        "evidence": evidence,
        "approvals": approvals,
        "request_id": context.current().request_id,
        "source": context.current().source,
    }
    _check_foreign_keys()
    head = locked_head()
    if not _is_sound(head):
        _resume(head)
    plain = chain.plain(body)
    entry = _append(head, plain, head.seq + 1, head.hash)
    for listener in _listeners:
        listener(entry, plain)
    return entry


def on_entry(listener: Callable[[Entry, Mapping[str, Any]], object]) -> None:
    """Register a function called with each entry and its body, in the same transaction. It must be fast: the head is
    locked."""
    _listeners.append(listener)


def _append(head: Head, body: dict[str, Any], seq: int, previous: str) -> Entry:
    at = clock.now()  # after the lock, so that times increase along the chain
    body |= {"v": chain.VERSION, "chain": head.chain, "seq": seq, "ts": chain.timestamp(at)}
    kept = chain.canonical(body)
    entry = Entry.objects.create(
        seq=seq, body=kept, prev_hash=previous, hash=chain.link(previous, kept), at=at, **columns(body)
    )
    head.seq, head.hash = seq, entry.hash
    head.save(update_fields=["chain", "seq", "hash"])
    return entry


def _check_foreign_keys() -> None:
    """Check foreign keys now instead of at the commit, where the check would wait for rows while others wait for the
    head.

    SQLite checks each statement's keys at the commit, and has only one writer.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def columns(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the members of a body that are copied into columns for filtering, truncated to the columns' lengths."""
    values = {
        "actor_kind": body["actor"]["kind"],
        "actor_id": body["actor"]["id"],
        "actor_label": body["actor"]["label"],
        "target_kind": body["target"]["kind"],
        "target_id": body["target"]["id"],
    } | {name: body[name] for name in ("action", "environment", "workload", "outcome", "reason")}
    return {name: value[: _LENGTHS.get(name)] for name, value in values.items()}


def body_of(entry: Entry) -> dict[str, Any]:
    """Return an entry's content for display. If its body is not an entry (somebody else wrote it), use the columns."""
    try:
        body = json.loads(bytes(entry.body))
    except (ValueError, TypeError, RecursionError):
        body = None
    names = ("action", "environment", "workload", "reason", "outcome")
    shown = {
        "v": chain.VERSION,
        "chain": "",
        "seq": entry.seq,
        "ts": chain.timestamp(entry.at),
        "actor": {
            "kind": entry.actor_kind, "id": entry.actor_id, "label": entry.actor_label, "user_id": None,
        },
        "target": {"kind": entry.target_kind, "id": entry.target_id},
        **{name: getattr(entry, name) for name in names},
        **dict.fromkeys(("before_sha256", "after_sha256", "evidence", "approvals")),
        **dict.fromkeys(("request_id", "source"), ""),
        "diff": [],
    }  # fmt: skip
    return shown | body if isinstance(body, dict) and _is_diff(body.get("diff")) else shown


def _is_diff(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(change, dict) and isinstance(change.get("path"), str) for change in value
    )


_LENGTHS = {field.name: field.max_length for field in Entry._meta.fields}


def locked_head() -> Head:
    """Return the head, locked until the transaction ends. The very first call starts the chain."""
    head = Head.objects.select_for_update().filter(pk=HEAD).first()
    if head is None:
        name = uuid7().hex
        # If two first calls race, the primary key lets one insert, and the other reads its row.
        Head.objects.get_or_create(pk=HEAD, defaults={"chain": name, "hash": chain.genesis(name)})
        head = Head.objects.select_for_update().get(pk=HEAD)
    if not is_readable(head):
        # Only in SQLite, which stores any type in any column. Such a head names no entry.
        head.seq, head.hash, head.chain = 0, "", ""
    return head


def is_readable(head: Head) -> bool:
    """Return whether the columns hold what their types say."""
    return isinstance(head.seq, int) and isinstance(head.hash, str) and isinstance(head.chain, str)


# --- continuing after foreign rows ----------------------------------------------------------------------


def _is_sound(head: Head) -> bool:
    """Return whether the head names the last entry, and no row blocks the next one."""
    rows = list(_in_the_way(head).values_list("seq", "hash", "body")[:2])
    if not head.seq:
        return not rows and head.hash == chain.genesis(head.chain)
    if len(rows) != 1 or rows[0][:2] != (head.seq, head.hash) or not chain.is_hash(head.hash):
        return False
    if not 0 < head.seq < _TOO_FAR:  # such an entry could block all later ones, whose numbers would not fit
        return False
    if isinstance(rows[0][2], str):  # only in SQLite
        return False
    return f'"chain":{json.dumps(head.chain)}'.encode() in bytes(rows[0][2])


def _in_the_way(head: Head) -> Any:
    near = Q(seq__gte=head.seq, seq__lte=head.seq + _NEAR)
    return Entry.objects.filter(near | Q(prev_hash=head.hash)).order_by("seq")


def _resume(head: Head) -> None:
    """Append an entry that reports what was found, and move the head to it."""
    base, found = _last_of_ours(head)
    if base is None:
        base_seq, base_hash = 0, chain.genesis(head.chain)
    else:
        base_seq, base_hash = base.seq, base.hash
        head.chain = json.loads(bytes(base.body))["chain"]
    others = Entry.objects.filter(seq__gt=base_seq, seq__lte=base_seq + _NEAR).order_by("seq")
    found += [{"seq": seq, "hash": hash_} for seq, hash_ in others.values_list("seq", "hash")[:_LISTED]]
    gone = head.seq if base is None and head.seq < _TOO_FAR else 0  # entries up to here may have existed
    last = max(others.aggregate(last=Max("seq"))["last"] or 0, base_seq, gone)
    proof = {"found": found, "nonce": secrets.token_hex(16)}
    body: dict[str, Any] = {
        "actor": {"kind": SYSTEM.kind, "id": SYSTEM.id, "label": SYSTEM.label, "user_id": None},
        "action": RESUME,
        "target": {"kind": "audit", "id": head.chain},
        "environment": "",
        "workload": "",
        "reason": "Rows of the log are not as Pointsman wrote them; the log continues after them.",
        "outcome": "done",
        "diff": [],
        "before_sha256": None,
        "after_sha256": None,
        "evidence": {"base": {"seq": base_seq, "hash": base_hash}, **proof},
        "approvals": None,
        "request_id": context.current().request_id,
        "source": context.current().source,
    }
    _append(head, chain.plain(body), last + 1, chain.resume(base_hash, proof))


def _last_of_ours(head: Head) -> tuple[Entry | None, list[dict[str, Any]]]:
    """Return the newest entry to continue from, and a description of the head if it is wrong."""
    ours = Entry.objects.filter(seq__gt=0, seq__lt=_TOO_FAR)
    named = ours.filter(seq=head.seq, hash=head.hash).first()
    if named is not None and _is_itself(named):
        return named, []
    wrong_head = {"what": "the head", "said": {"chain": head.chain, "seq": str(head.seq), "hash": head.hash}}
    for entry in ours.order_by("-seq").iterator():
        if _is_itself(entry):
            return entry, [wrong_head]
    return None, [wrong_head]


def _is_itself(entry: Entry) -> bool:
    """Return whether an entry's content matches its hash and its number."""
    if not (chain.is_hash(entry.prev_hash) and chain.is_hash(entry.hash)) or isinstance(entry.body, str):
        return False
    if chain.link(entry.prev_hash, bytes(entry.body)) != entry.hash:
        return False
    try:
        body = json.loads(bytes(entry.body))
        return bool(body["seq"] == entry.seq and isinstance(body["chain"], str))
    except (ValueError, KeyError, TypeError):
        return False
