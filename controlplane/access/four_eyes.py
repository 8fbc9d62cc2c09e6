"""Four eyes: who counts as a second person. One rule for rollouts and for every other change that waits for a yes.

The people who wrote, proposed or amended a change are its *contributors*, by the id of the person: a key counts as
its person, and a key that acts for nobody is `None`. A yes counts while its giver

    - is not a contributor, and never was one,
    - has an account that is active, and the role approver in the environment,
    - agreed to the very content that is applied (the binding, compared by whoever keeps the approvals).

Each is asked again when the change is applied. Where a contributor is unknown, it may have been any of the approvers:
two of them are needed, since one at least is somebody else.
"""

from collections.abc import Collection, Iterable

from controlplane.access.models import Role
from controlplane.access.permissions import has_role
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, Forbidden, SelfApproval

Contributors = Collection[str | None]


def approvals_needed(contributors: Contributors) -> int:
    """How many people must agree: one, or two where somebody who contributed is not known."""
    return 1 if contributors and None not in contributors else 2


def with_contributor(contributors: Iterable[str | None], user_id: str | None) -> list[str | None]:
    """The contributors and one more. Nobody is ever taken out of this list."""
    known = list(contributors)
    return known if user_id in known else [*known, user_id]


def refuse_approver(actor: Actor, contributors: Contributors, agreed: Collection[str]) -> None:
    """Raise unless this yes adds a person: not a contributor, not one of those who `agreed` already."""
    if actor.user_id is None:
        raise Forbidden("An approval is a person's: use a session, or a key that belongs to somebody.")
    if actor.user_id in contributors:
        raise SelfApproval(
            f"{actor.label} wrote, proposed or amended this, in person or with a key: somebody else must approve it."
        )
    if actor.user_id in agreed:
        raise Conflict("You approved it already; it takes another approver, too.")


def still_count(approvers: Iterable[str], contributors: Contributors, environment: str) -> set[str]:
    """Those of the approvers whose yes counts now."""
    return {
        user_id
        for user_id in approvers
        if user_id not in contributors
        and has_role(Actor("user", user_id, "", user_id), Role.APPROVER, environment)
    }


def missing_sentence(contributors: Contributors, counted: int) -> str:
    """What is still needed, for the refusal."""
    if approvals_needed(contributors) == 1:
        return "An approver who neither wrote, proposed nor amended it can approve it."
    return (
        "It was written or proposed with a key that belongs to nobody, so two approvers must agree; "
        f"{counted} of 2 did."
    )
