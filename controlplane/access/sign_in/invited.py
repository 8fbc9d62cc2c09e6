"""The invitation that a browser came with: the link was opened, the account is not made yet."""

from django.http import HttpRequest

from controlplane.access import actions
from controlplane.access.models import Invitation
from controlplane.core.errors import InvitationEnded

SESSION_KEY = "invitation"  # the hash of the token


def remember(request: HttpRequest, token: str) -> None:
    request.session[SESSION_KEY] = actions.token_hash(token)


def forget(request: HttpRequest) -> None:
    request.session.pop(SESSION_KEY, None)


def invitation_of(request: HttpRequest) -> Invitation:
    """The invitation whose link this browser opened. Raises `InvitationEnded`."""
    found = Invitation.objects.filter(token_sha256=request.session.get(SESSION_KEY, "")).first()
    if found is None:
        raise InvitationEnded("There is no such invitation. Open the link again, or ask for a new one.")
    actions.refuse_ended(found)
    return found
