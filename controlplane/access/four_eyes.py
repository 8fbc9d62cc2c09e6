"""Four eyes: who counts as a second person. One rule for rollouts and all other changes that need approval.

The people who wrote, proposed or amended a change are its *contributors*, identified by person: a key counts as its
person, and a key without a person as `None`. An approval counts while the approver

- is not, and never was, a contributor;
- has an active account, and the role approver in the environment;
- has approved exactly the content that is applied (the binding, compared by the code that stores the approvals).

All of this is checked again when the change is applied. If a contributor is unknown, they may be one of the approvers.
Two approvers are then needed, so that at least one of them is somebody else.
"""

from collections.abc import Callable, Collection, Iterable

from controlplane.access.models import Role
from controlplane.access.permissions import holders
from controlplane.core.actors import Actor
from controlplane.core.errors import Conflict, Forbidden, SelfApproval

Contributors = Collection[str | None]
MayApprove = Callable[[str, str], bool]  # (a person's id, an environment)


def approvals_needed(contributors: Contributors) -> int:
    """Return how many people must approve: one, or two if a contributor is unknown."""
    return 1 if contributors and None not in contributors else 2


def with_contributor(contributors: Iterable[str | None], user_id: str | None) -> list[str | None]:
    """Return the contributors and one more. Nobody is ever removed from this list."""
    known = list(contributors)
    return known if user_id in known else [*known, user_id]


def refuse_approver(actor: Actor, contributors: Contributors, agreed: Collection[str]) -> None:
    """Raise unless this approval adds a new person: neither a contributor nor one who has `agreed` already."""
    if actor.user_id is None:
        raise Forbidden("Only a person can approve: use a session, or a key that belongs to a person.")
    if actor.user_id in contributors:
        raise SelfApproval(
            f"{actor.label} wrote, proposed or amended this, in person or with a key: somebody else must approve it."
        )
    if actor.user_id in agreed:
        raise Conflict("You have already approved it; another approver is needed.")


def who_may_approve(user_ids: Iterable[str]) -> MayApprove:
    """Return which of these people may approve in which environment, as of now, in one query."""
    return holders(Role.APPROVER, user_ids)


def still_count(
    approvers: Collection[str],
    contributors: Contributors,
    environment: str,
    may_approve: MayApprove | None = None,
) -> set[str]:
    """Return the approvers whose approval counts now. `may_approve`: read for many changes at once."""
    may_approve = may_approve or who_may_approve(approvers)
    return {
        user_id for user_id in approvers if user_id not in contributors and may_approve(user_id, environment)
    }


def missing_sentence(contributors: Contributors, counted: int) -> str:
    """Return what is still needed, for the refusal's message."""
    if approvals_needed(contributors) == 1:
        return "An approver who neither wrote, proposed nor amended it can approve it."
    return (
        "It was written or proposed with a key that belongs to nobody, so two approvers are needed; "
        f"{counted} of 2 have approved."
    )
