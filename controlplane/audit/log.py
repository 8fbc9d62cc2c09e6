"""The audit log's interface for writers: completed changes (`record`) and refused attempts (`attempt`)."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from controlplane.audit.entries import HEAD, columns, locked_head, on_entry, record
from controlplane.audit.refusals import REFUSALS, is_recorded, keep_refusal, record_refusal
from controlplane.core.actors import Actor

__all__ = [
    "HEAD",
    "REFUSALS",
    "attempt",
    "columns",
    "is_recorded",
    "keep_refusal",
    "locked_head",
    "on_entry",
    "record",
    "record_refusal",
]


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
    """Run a transaction. If it is refused (403, 409, 412), roll it back, record the refusal and raise it again."""
    try:
        with transaction.atomic():
            yield
    except REFUSALS as error:
        if is_recorded(error):
            keep_refusal(error)  # an inner attempt recorded it, but this rollback removed the entry
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
