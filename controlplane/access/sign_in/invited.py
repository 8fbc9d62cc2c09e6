"""The invitation that a browser opened, before its account exists."""

from django.contrib.auth.models import User
from django.http import HttpRequest

from controlplane.access import actions
from controlplane.access.models import Invitation
from controlplane.access.sign_in import throttle
from controlplane.audit import log
from controlplane.core.actors import Actor
from controlplane.core.errors import InvitationEnded, PointsmanError

SESSION_KEY = "invitation"  # the hash of the token


def remember(request: HttpRequest, token: str) -> None:
    """Keep the token's hash in the session, unless nobody made such a link: anybody may open any number of those."""
    found = actions.token_hash(token)
    if Invitation.objects.filter(token_sha256=found).exists():
        request.session[SESSION_KEY] = found
    else:
        forget(request)


def forget(request: HttpRequest) -> None:
    request.session.pop(SESSION_KEY, None)


def invitation_of(request: HttpRequest) -> Invitation:
    """Return the invitation whose link this browser opened. Raises `InvitationEnded`."""
    found = Invitation.objects.filter(token_sha256=request.session.get(SESSION_KEY, "")).first()
    if found is None:
        raise InvitationEnded(
            "This invitation does not exist. Check that you opened the whole link, or ask for a new one."
        )
    actions.refuse_ended(found)
    return found


def refuse(request: HttpRequest, error: PointsmanError) -> None:
    """Record that an invitation was not accepted, unless only the input was invalid."""
    if not isinstance(error, log.REFUSALS):
        return
    where, user = throttle.address(request), request.user
    visitor = Actor("visitor", where, f"somebody at {where}")
    found = Invitation.objects.filter(token_sha256=request.session.get(SESSION_KEY, "")).first()
    log.record_refusal(
        error,
        actor=Actor.of_user(user) if isinstance(user, User) else visitor,
        action="invitation.accept",
        target=("invitation", "of an unknown link" if found is None else str(found.pk)),
    )
