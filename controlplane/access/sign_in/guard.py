"""REQUIRE_SECOND_FACTOR: people who sign in with a password must set up a second factor first.

Sessions that began at the company's provider are exempt, because the provider asks for its own.
"""

from collections.abc import Callable
from typing import cast

from allauth.account.internal.flows.login import get_authentication_records
from allauth.mfa.utils import is_mfa_enabled
from django.conf import settings
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.shortcuts import redirect

from controlplane.core.actors import Actor
from controlplane.core.errors import SecondFactorMissing
from controlplane.core.problems import CONTENT_TYPE
from controlplane.web import refused_writes

OPEN = ("/console/login/", "/console/logout/", "/console/account/", "/static/")


def second_factor(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    def middleware(request: HttpRequest) -> HttpResponseBase:
        if settings.REQUIRE_SECOND_FACTOR and not request.path.startswith(OPEN) and _lacks_one(request):
            if request.path.startswith("/console/"):
                return redirect("mfa_activate_totp")
            refusal = SecondFactorMissing("Set up a second factor in the console first: /console/account/.")
            refused_writes.keep(
                refusal,
                method=str(request.method),
                path=request.path,
                named={},
                actor=lambda: Actor.of_user(cast("User", request.user)),
            )
            return JsonResponse(refusal.as_problem(), status=refusal.status, content_type=CONTENT_TYPE)
        return get_response(request)

    return middleware


def _lacks_one(request: HttpRequest) -> bool:
    user = request.user
    if not isinstance(user, User) or not user.is_authenticated:
        return False  # anonymous, or a script with a key
    if any(record["method"] == "socialaccount" for record in get_authentication_records(request, user)):
        return False
    return not is_mfa_enabled(user)
