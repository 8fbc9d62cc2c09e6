"""Appends to the audit log. One function for what was done, one for what was refused."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from controlplane.audit import chain
from controlplane.audit.models import Entry, Head
from controlplane.core import clock, context
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, Forbidden, PointsmanError, StaleVersion
from controlplane.core.ids import uuid7

logger = logging.getLogger(__name__)

HEAD = 1  # the primary key of the only head row
REFUSALS = (Forbidden, Conflict, StaleVersion)  # what `attempt` keeps: a no to a well-formed request


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
    """Append one entry to the chain, in the caller's transaction, as the last thing that it does.

    `target` is (kind, id). Only what differs between `before` and `after` is kept, with the SHA-256 of both.
    The head row stays locked until the commit: entries are numbered in the order in which they commit, and
    whatever the caller does after this call, everybody else waits for.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("an audit entry belongs into its change's transaction: use transaction.atomic")
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
    return _append(chain.plain(body))


def _append(body: dict[str, Any]) -> Entry:
    _check_foreign_keys()
    head = locked_head()
    at = clock.now()  # after the lock, so that times grow along the chain
    seq = head.seq + 1
    body |= {"v": chain.VERSION, "chain": head.chain, "seq": seq, "ts": chain.timestamp(at)}
    kept = chain.canonical(body)
    entry = Entry.objects.create(
        seq=seq, body=kept, prev_hash=head.hash, hash=chain.link(head.hash, kept), at=at, **columns(body)
    )
    head.seq, head.hash = seq, entry.hash
    head.save(update_fields=["seq", "hash"])
    return entry


def _check_foreign_keys() -> None:
    """Check them now, and not at the commit: there the check would wait for rows while everybody waits for the head.

    SQLite checks each statement's at the commit, and has one writer.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def columns(body: Mapping[str, Any]) -> dict[str, str]:
    """The members of a body that are kept beside it, to filter by, cut to their columns' lengths."""
    values = {
        "actor_kind": body["actor"]["kind"],
        "actor_id": body["actor"]["id"],
        "actor_label": body["actor"]["label"],
        "target_kind": body["target"]["kind"],
        "target_id": body["target"]["id"],
    } | {name: body[name] for name in ("action", "environment", "workload", "outcome", "reason")}
    return {name: value[: _LENGTHS.get(name)] for name, value in values.items()}


_LENGTHS = {field.name: field.max_length for field in Entry._meta.fields}


def locked_head() -> Head:
    """The end of the chain, locked. The first caller ever starts the chain."""
    head = Head.objects.select_for_update().filter(pk=HEAD).first()
    if head is None:
        name = uuid7().hex
        # Two first callers at once: the primary key lets one insert, the other reads what that one wrote.
        Head.objects.get_or_create(pk=HEAD, defaults={"chain": name, "hash": chain.genesis(name)})
        head = Head.objects.select_for_update().get(pk=HEAD)
    return head


def record_refusal(
    error: PointsmanError,
    *,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    environment: str = "",
    workload: str = "",
    reason: str = "",
) -> None:
    """Append a refused attempt, in a transaction of its own.

    Call it after the attempt's transaction was rolled back. When that was inside a wider one (a request with
    an `Idempotency-Key`), the entry goes down with it: the error carries the entry's details, and the
    code that rolls back the wider one calls `keep_refusal`.
    """
    fields = {
        "actor": actor,
        "action": action,
        "target": target,
        "environment": environment,
        "workload": workload,
        "reason": reason,
        "evidence": {"code": error.code, "detail": error.detail},
        "outcome": "refused",
    }
    with transaction.atomic():
        entry = record(**fields)  # type: ignore[arg-type]
    error.__dict__["_refusal"] = (entry.hash, fields)


def keep_refusal(error: BaseException) -> None:
    """Append an error's refusal again if the rollback took it away. Call it outside of that transaction."""
    entry_hash, fields = error.__dict__.get("_refusal", (None, None))
    if fields is None or Entry.objects.filter(hash=entry_hash).exists():
        return
    with transaction.atomic():
        entry = record(**fields)
    error.__dict__["_refusal"] = (entry.hash, fields)


@contextmanager
def attempt(
    *,
    actor: Actor,
    action: str,
    target: tuple[str, str],
    environment: str = "",
    workload: str = "",
    reason: str = "",
) -> Iterator[None]:
    """A transaction whose refusal (403, 409, 412) is rolled back, appended to the log and raised again."""
    try:
        with transaction.atomic():
            yield
    except REFUSALS as error:
        if "_refusal" in error.__dict__:
            keep_refusal(error)  # an attempt inside this one kept it, and this one's rollback took it away
        else:
            record_refusal(
                error,
                actor=actor,
                action=action,
                target=target,
                environment=environment,
                workload=workload,
                reason=reason,
            )
        raise
