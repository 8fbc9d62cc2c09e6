"""`Idempotency-Key`: a repeated POST is done once, and gets the same answer.

The answer is stored in the work's transaction, so neither ever exists without the other. Modelled on Stripe's API and
the IETF draft draft-ietf-httpapi-idempotency-key-header.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError, transaction

from controlplane.access.models import Answer
from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import IdempotencyMismatch, InvalidInput

KEPT_FOR = timedelta(days=1)
_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """A stored answer. `body` is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]
    repeated: bool = False


def answer_once(actor: Actor, key: str, request_sha256: str, work: Callable[[], StoredReply]) -> StoredReply:
    """Do `work` and store its answer, or return the stored answer.

    A refusal is not stored: it changed nothing, so the request may be retried. A second request during the first one
    waits for it at the unique index. Raises `IdempotencyMismatch` if the key was used for another request.
    """
    if not _KEY.fullmatch(key):
        raise InvalidInput("An Idempotency-Key must have 1 to 255 printable ASCII characters without spaces.")
    principal = f"{actor.kind}:{actor.id}"
    with transaction.atomic():
        try:
            with transaction.atomic():
                answer = Answer.objects.create(
                    principal=principal, idempotency_key=key, request_sha256=request_sha256, at=clock.now()
                )
        except IntegrityError:
            return _stored_reply(Answer.objects.get(principal=principal, idempotency_key=key), request_sha256)
        reply = work()
        answer.status, answer.body, answer.headers = reply.status, reply.body, dict(reply.headers)
        answer.save(update_fields=["status", "body", "headers"])
    return reply


def prune() -> None:
    """Delete answers older than a day."""
    Answer.objects.filter(at__lt=clock.now() - KEPT_FOR).delete()


def _stored_reply(answer: Answer, request_sha256: str) -> StoredReply:
    if answer.request_sha256 != request_sha256:
        raise IdempotencyMismatch(
            f"The Idempotency-Key {answer.idempotency_key} was used for another request; use a new one."
        )
    return StoredReply(answer.status, answer.body, answer.headers, repeated=True)
