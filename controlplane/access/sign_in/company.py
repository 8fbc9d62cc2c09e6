"""Sign-in with the company's identity provider through OpenID Connect, implemented by django-allauth.

A person is identified by issuer and `sub`, never by an e-mail address: otherwise anybody who can set an address at
the provider could take over its owner's account here. Nobody gets an account without an invitation: they open its link
first, and continue to the provider from there.
"""

import hashlib
import logging
import re
from contextlib import AbstractContextManager
from typing import Any

import requests
from allauth.account.internal.flows.reauthentication import is_reauthentication_required
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from allauth.socialaccount.models import SocialAccount, SocialLogin
from allauth.socialaccount.providers.oauth2.client import OAuth2Error
from allauth.socialaccount.providers.openid_connect import views as openid
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache

from controlplane.access import actions
from controlplane.access.sign_in import invited
from controlplane.access.sign_in.adapters import refuse
from controlplane.audit import log
from controlplane.core.actors import Actor, is_reserved
from controlplane.core.errors import Conflict, InvitationEnded, SignInFailed
from controlplane.core.names import hidden_character

logger = logging.getLogger(__name__)
PROVIDER = "company"  # the provider's name in URLs; there is only one
MOST_OF_ID = 191  # characters in allauth's column


def name() -> str:
    """Return the provider's display name; empty if none is configured."""
    providers: Any = settings.SOCIALACCOUNT_PROVIDERS
    found = providers["openid_connect"]["APPS"]
    return str(found[0]["name"]) if found else ""


class CompanyAdapter(DefaultSocialAccountAdapter):  # type: ignore[misc]  # allauth carries no types
    """Decides who may sign in through the provider, and chooses their user name."""

    def populate_user(self, request: HttpRequest, sociallogin: SocialLogin, data: Any) -> User:
        # The first hook, before allauth looks the account up.
        sociallogin.account.uid = stored_id(sociallogin.account)
        user: User = super().populate_user(request, sociallogin, data)
        return user

    def pre_social_login(self, request: HttpRequest, sociallogin: SocialLogin) -> None:
        # Addresses are informational only here. allauth would refuse one that is taken, and so reveal who has it.
        sociallogin.email_addresses = []
        if sociallogin.state.get("process") == "connect":
            raise ImmediateHttpResponse(_connected(request, sociallogin))

    def is_open_for_signup(self, request: HttpRequest, sociallogin: SocialLogin) -> bool:
        try:
            invited.invitation_of(request)
        except InvitationEnded:
            who = f"{sociallogin.account.uid}"[:200]
            refuse(request, SignInFailed(f"Nobody invited {who!r} of the identity provider."), None)
            raise ImmediateHttpResponse(_not_invited(request, sociallogin)) from None
        return True

    def save_user(self, request: HttpRequest, sociallogin: SocialLogin, form: Any = None) -> User:
        """Create the account with what the invitation grants, in one transaction."""
        user: User = sociallogin.user
        user.username = _free_name(sociallogin)
        user.first_name, user.last_name = _visible(user.first_name), _visible(user.last_name)
        user.set_unusable_password()
        try:
            with transaction.atomic():
                actions.accept_as(invited.invitation_of(request).token_sha256, user)
                with _change(user, "provider.connect", sociallogin.account):
                    sociallogin.save(request)
        except InvitationEnded as error:
            invited.refuse(request, error)
            raise ImmediateHttpResponse(page(request, "no_account", status=410, why=error.detail)) from None
        invited.forget(request)
        return user

    def on_authentication_error(
        self, request: HttpRequest, provider: Any, error: Any = None, exception: Any = None, **kwargs: Any
    ) -> None:
        if str(error) == "cancelled":
            raise ImmediateHttpResponse(redirect("account_login"))
        logger.warning("a sign-in through the identity provider failed (%s): %r", error, exception)
        raise ImmediateHttpResponse(page(request, "failed", status=502))


def stored_id(account: SocialAccount) -> str:
    """Return the id under which a person's account at the provider is stored: issuer and `sub`.

    A `sub` is unique only within its issuer (OpenID Connect Core 1.0, section 2): after a change of `OIDC_ISSUER`, the
    same one may be somebody else. Accounts stored by their `sub` alone are found if their last sign-in was at this
    issuer. `OIDC_FORMER_ISSUERS` are other addresses of the same provider.

    Raises `OAuth2Error` for an answer without issuer, or whose user info is about somebody else (section 5.3.2).
    """
    issuer, sub = _issuer(account), account.uid
    if not issuer or str(account.extra_data["id_token"].get("sub")) != sub:
        raise OAuth2Error("The ID token has no issuer, or is about somebody else.")
    issuers = [issuer, *settings.OIDC_FORMER_ISSUERS]
    ids = [_id(one, sub) for one in issuers]
    stored = {row.uid: row for row in SocialAccount.objects.filter(provider=PROVIDER, uid__in=[*ids, sub])}
    by_sub = [sub] if sub in stored and _issuer(stored[sub]) in issuers and " " not in sub else []
    return next((uid for uid in [*ids, *by_sub] if uid in stored), ids[0])


def _issuer(account: SocialAccount) -> str:
    """Return the issuer of the last sign-in with this account; empty if it is not known."""
    told = account.extra_data.get("id_token") if isinstance(account.extra_data, dict) else None
    issuer = told.get("iss") if isinstance(told, dict) else None
    return issuer if isinstance(issuer, str) else ""


def _id(issuer: str, sub: str) -> str:
    whole = f"{issuer} {sub}"
    return whole if len(whole) <= MOST_OF_ID else f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"


def _sub(account: SocialAccount) -> str:
    return str(account.extra_data["id_token"]["sub"])


def _connected(request: HttpRequest, sociallogin: SocialLogin) -> HttpResponse:
    """Connect an account at the provider to the person who is logged in."""
    user = request.user
    if not isinstance(user, User) or is_reauthentication_required(request, app="allauth.socialaccount"):
        messages.error(request, "Confirm that it is you first, then connect again.")
    elif sociallogin.is_existing:
        messages.error(request, "That account is already connected, to you or to somebody else.")
    else:
        with _change(user, "provider.connect", sociallogin.account):
            sociallogin.connect(request, user)
        messages.success(request, f"You can log in with {name()} now.")
    return redirect("console:account")


def disconnect(user: User) -> None:
    """Disconnect a person's account at the provider. Raises `Conflict` if they would have no way to log in."""
    actor, target = Actor.of_user(user), ("user", str(user.pk))
    with log.attempt(actor=actor, action="provider.disconnect", target=target):
        # The person before their accounts, as where one is connected.
        user = User.objects.select_for_update().get(pk=user.pk)
        if not user.has_usable_password():
            raise Conflict("You have no password, so you could no longer log in.")
        for account in SocialAccount.objects.select_for_update().filter(user=user):
            with _change(user, "provider.disconnect", account):
                account.delete()


def _change(user: User, action: str, account: SocialAccount) -> AbstractContextManager[None]:
    proof = {"provider": account.provider, "uid": account.uid}
    return actions.account_change(user, action, actor=Actor.of_user(user), evidence=proof)


def _free_name(sociallogin: SocialLogin) -> str:
    """Return an unused name, based on the provider's data about the person."""
    given = (sociallogin.user.username, sociallogin.user.email.partition("@")[0], _sub(sociallogin.account))
    shaped = (
        re.sub(r"[^A-Za-z0-9._@+-]", "", str(text), flags=re.ASCII).lstrip("._@+-")[:56] for text in given
    )
    first = next(filter(None, shaped), "person")
    found = first
    for number in range(2, 1_000):
        if not is_reserved(found) and not User.objects.filter(username__iexact=found).exists():
            break
        found = f"{first}{number}"
    return found


def _visible(text: str) -> str:
    seen = "".join(character for character in text if not hidden_character(character))
    return "" if is_reserved(seen) else seen


# --- pages ---------------------------------------------------------------------------------------------


@never_cache
def start(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Redirect the browser to the provider."""
    return _asked(openid.login, request, provider_id)


@never_cache
def come_back(request: HttpRequest, provider_id: str) -> HttpResponseBase:
    """Handle the browser's return from the provider."""
    return _asked(openid.callback, request, provider_id)


def _asked(view: Any, request: HttpRequest, provider_id: str) -> HttpResponseBase:
    try:
        response: HttpResponseBase = view(request, provider_id)
    except (requests.RequestException, OAuth2Error, ImproperlyConfigured, KeyError, ValueError) as error:
        logger.warning("the identity provider could not be reached, or its answer was not valid: %r", error)
        return page(request, "failed", status=502)
    return response


def _not_invited(request: HttpRequest, sociallogin: SocialLogin) -> HttpResponse:
    who = sociallogin.user.email or sociallogin.user.username or _sub(sociallogin.account)
    return page(request, "no_account", status=403, who=_visible(str(who)))


def page(request: HttpRequest, template: str, *, status: int, **context: Any) -> HttpResponse:
    frame = {**admin.site.each_context(request), "company": name()}
    return render(request, f"socialaccount/{template}.html", {**frame, **context}, status=status)
