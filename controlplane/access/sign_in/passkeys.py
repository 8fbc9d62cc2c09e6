"""Passkeys and security keys (WebAuthn): a second factor after the password, or name, password and factor in one.

django-allauth and python-fido2 check them. This module limits and strictly parses the input, records each failure, and
adds the console's layout. A passkey belongs to the host name under which it was created (its relying party's id).
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.mfa.webauthn import forms as webauthn_forms
from allauth.mfa.webauthn import views as webauthn
from django import forms
from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.http import HttpRequest, HttpResponse
from django.urls import reverse_lazy

from controlplane.access.sign_in.adapters import refuse
from controlplane.access.sign_in.frames import Sheet
from controlplane.core import strictjson
from controlplane.core.errors import PointsmanError, SignInFailed
from controlplane.core.names import hidden_character

ACCOUNT = reverse_lazy("console:account")
MOST_BYTES = 16_384  # of a browser's response; usually about 1 kB, a few with an attestation
REFUSED = "The passkey was not accepted. Try again, or log in another way."


def of(user: User) -> list[Authenticator]:
    """Return the passkeys of this person, the oldest first."""
    return list(Authenticator.objects.filter(user=user, type=Authenticator.Type.WEBAUTHN).order_by("pk"))


class CredentialField(forms.Field):
    """The JSON object that the browser's script puts into the form. It is stored in a row, so it is parsed strictly."""

    widget = forms.HiddenInput

    def to_python(self, value: Any) -> dict[str, Any] | None:
        if value in self.empty_values:
            return None
        try:
            found = strictjson.loads(str(value).encode(errors="surrogatepass"), MOST_BYTES)
        except PointsmanError:
            found = None
        if not isinstance(found, dict):
            raise forms.ValidationError(REFUSED)
        return found


@contextmanager
def _one_answer() -> Iterator[None]:
    """Turn every error of a passkey into one message, never a 500, because the caller controls the bytes."""
    try:
        yield
    except forms.ValidationError as error:
        raise error if error.code == "too_many_login_attempts" else forms.ValidationError(REFUSED) from None
    except Exception as error:  # parsers of CBOR, COSE and signatures raise various exceptions
        raise forms.ValidationError(REFUSED) from error


class AddForm(webauthn_forms.AddWebAuthnForm):  # type: ignore[misc]  # allauth carries no types
    credential = CredentialField()
    name = forms.CharField(
        required=False, max_length=60, help_text="Where it is stored, for example: my laptop, my key ring."
    )
    passwordless = forms.BooleanField(
        required=False,
        initial=True,
        label="Log in with it alone",
        help_text="Without name and password, but with a fingerprint, a face or a PIN. "
        "If not ticked, it is used after the password.",
    )

    def clean_name(self) -> str:
        name: str = super().clean_name()
        if hidden_character(name):
            raise forms.ValidationError("It contains an invisible character.")
        return name

    def clean(self) -> dict[str, Any]:
        with _one_answer():
            given: dict[str, Any] = super().clean()
        return given


class SecondFactorForm(webauthn_forms.AuthenticateWebAuthnForm):  # type: ignore[misc]
    credential = CredentialField()

    def clean_credential(self) -> Authenticator:
        with _one_answer():
            return super().clean_credential()


class ConfirmForm(SecondFactorForm):
    reauthenticated = True


class LoginForm(SecondFactorForm):
    """The passkey identifies the person. It must have verified a fingerprint, a face or a PIN."""

    passwordless = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, user=None, **kwargs)


# --- pages ---------------------------------------------------------------------------------------------


def for_the_script(context: dict[str, Any]) -> dict[str, Any]:
    """Return the challenge as the attribute that `passkeys.js` reads."""
    return {"passkey_options": json.dumps(context["js_data"], cls=DjangoJSONEncoder)}


class PasskeySheet(Sheet):
    template_name = "account/passkey.html"
    kind = ""  # the ceremony of the script: `add`, `authenticate`

    def get_form(self, form_class: Any = None) -> Any:
        """Create the form only once. allauth's views create another one to show it, which would use a new challenge."""
        if "_form" not in self.__dict__:
            self.__dict__["_form"] = super().get_form(form_class)  # type: ignore[misc]
        return self.__dict__["_form"]

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        found = super().get_context_data(**kwargs)
        return {**found, "kind": self.kind, **for_the_script(found)}


class AddPasskeyView(PasskeySheet, webauthn.AddWebAuthnView):  # type: ignore[misc]
    form_class = AddForm
    title = "Add a passkey"
    about = "Your browser asks where to store it: on this device, on your phone, or on a security key."
    button = "Add"
    change = "second_factor.add"
    kind = "add"

    def form_valid(self, form: forms.BaseForm) -> HttpResponse:
        self.evidence = {"kind": "passkey", "name": form.cleaned_data["name"]}
        return super().form_valid(form)


class RemovePasskeyView(Sheet, webauthn.RemoveWebAuthnView):  # type: ignore[misc]
    about = "You can no longer log in with it. Remove it from the device, too: the device keeps its copy."
    button = "Remove"
    danger = True
    change = "second_factor.remove"
    success_url = ACCOUNT

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        self.title = f"Remove the passkey {self.object}"
        return super().get_context_data(**kwargs)

    def form_valid(self, form: forms.BaseForm) -> HttpResponse:
        self.evidence = {"kind": "passkey", "name": str(self.object)}
        return super().form_valid(form)


class ConfirmPasskeyView(PasskeySheet, webauthn.ReauthenticateWebAuthnView):  # type: ignore[misc]
    form_class = ConfirmForm
    title = "Confirm that it is you"
    about = "This change requires your passkey."
    button = "Use a passkey"
    kind = "authenticate"

    def form_invalid(self, form: forms.BaseForm) -> HttpResponse:
        user = self.request.user
        failed(self.request, user if isinstance(user, User) else None)
        page: HttpResponse = self.render_to_response(self.get_context_data(form=form))
        return page


class LoginPasskeyView(webauthn.LoginWebAuthnView):  # type: ignore[misc]
    """A script gets a challenge by GET and submits the response by POST. The page is the login page."""

    form_class = LoginForm
    http_method_names = ["get", "post", "head", "options"]

    def form_invalid(self, form: forms.BaseForm) -> HttpResponse:
        failed(self.request, None)
        page: HttpResponse = super().form_invalid(form)
        return page


def failed(request: HttpRequest, user: User | None) -> None:
    """Record a refused passkey. `user` is None if no correct password came first: its claim proves nothing."""
    refuse(request, SignInFailed("The passkey was not accepted."), user)
