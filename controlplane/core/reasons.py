"""Reasons for changes. Every write accepts a reason; one that weakens a guard or grants power requires it."""

from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import InvalidInput


def demand(actor: Actor, reason: str, what: str) -> None:
    """Raise `InvalidInput` if a person or key gives no reason for `what` (a sentence without its full stop).

    Commands run as the system and need none: shell access is controlled elsewhere.
    """
    if actor.kind != SYSTEM.kind and not reason.strip():
        raise InvalidInput(
            f"{what}: give a reason. The audit log keeps it.",
            [{"path": "reason", "message": "This change needs a reason."}],
        )
