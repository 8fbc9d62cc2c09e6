"""The page of one's own account: roles, ways to sign in, and keys."""

from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.socialaccount.models import SocialAccount
from django.http import HttpRequest, HttpResponse

from controlplane.access.models import Key
from controlplane.access.sign_in import company, passkeys
from controlplane.core import clock
from controlplane.web.pages import console_view, page, person


@console_view("GET")
def account(request: HttpRequest) -> HttpResponse:
    user = person(request)
    kept = {authenticator.type: authenticator for authenticator in Authenticator.objects.filter(user=user)}
    codes = kept.get(Authenticator.Type.RECOVERY_CODES)
    context = {
        "person": user,
        "memberships": user.memberships.order_by("environment", "role"),
        "teams": user.pointsman_teams.order_by("name"),
        "totp": kept.get(Authenticator.Type.TOTP),
        "passkeys": [passkey.wrap() for passkey in passkeys.of(user)],
        "codes_left": None if codes is None else len(RecoveryCodes(codes).get_unused_codes()),
        "company": company.name(),
        "connected": SocialAccount.objects.filter(user=user).exists(),
        "keys": Key.objects.filter(user=user, revoked_at=None).order_by("-pk"),
        "now": clock.now(),
    }
    return page(request, "account/account.html", context, title="Your account")
