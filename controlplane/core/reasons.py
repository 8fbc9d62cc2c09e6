"""Why a change is made. Every write takes a reason; what weakens a guard, or gives power, asks for one."""

from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import InvalidInput


def demand(actor: Actor, reason: str, what: str) -> None:
    """Raise `InvalidInput` when a person or a key gives no reason for `what` (a sentence without its full stop).

    Commands run under the system's name: who may run them has said why elsewhere.
    """
    if actor.kind != SYSTEM.kind and not reason.strip():
        raise InvalidInput(
            f"{what}: say why. The audit log keeps it.",
            [{"path": "reason", "message": "This change needs a reason."}],
        )
