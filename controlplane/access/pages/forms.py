"""Forms of the people pages. They only parse and validate; actions do the writing."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django import forms
from django.contrib.auth.models import User

from controlplane.access.actions import places
from controlplane.access.models import Role, Team
from controlplane.core.names import ADDRESS_NAME, validate_text

EVERYWHERE = "every environment"
ROLES = "roles_"  # plus an environment's name: the field of the roles there


class WhyForm(forms.Form):
    """The reason for a change to people, kept in the audit log."""

    problems: list[dict[str, Any]] = []  # of a refusal, set by `controlplane.web.pages.attempt`
    reason = forms.CharField(
        validators=[validate_text],
        max_length=400,
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": "Why"}),
        help_text="Kept in the audit log with your name.",
    )


class RoleField(forms.MultipleChoiceField):
    """Roles in one environment, as checkboxes."""

    def __init__(self, environment: str) -> None:
        label = environment or EVERYWHERE
        super().__init__(
            choices=[(role.value, role.value) for role in Role],
            required=False,
            label=f"In {label}",
            widget=forms.CheckboxSelectMultiple,
        )


class InviteForm(WhyForm):
    """Who is invited, with which roles, and how long the link is valid."""

    invited = forms.CharField(label="Who", max_length=120, help_text="Their name, or what you call them.")
    email = forms.EmailField(
        label="E-mail", required=False, help_text="For information only: you send them the link yourself."
    )
    teams = forms.ModelMultipleChoiceField(
        Team.objects.order_by("name"), required=False, widget=forms.CheckboxSelectMultiple
    )
    days = forms.IntegerField(label="The link is valid for (days)", min_value=1, max_value=30, initial=3)

    def __init__(self, environments: list[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = {f"{ROLES}{name}": name for name in environments}
        for field, name in self._places.items():
            self.fields[field] = RoleField(name)
        self.order_fields(["invited", "email", *self._places, "teams", "days", "reason"])

    def clean(self) -> dict[str, Any]:
        given = super().clean() or self.cleaned_data
        if self.errors:
            return given
        roles = [
            {"environment": name, "role": role}
            for field, name in self._places.items()
            for role in given.pop(field)
        ]
        if not roles:
            raise forms.ValidationError("Select at least one role.")
        teams = [team.name for team in given.pop("teams")]
        lives = timedelta(days=given.pop("days"))
        return {**given, "roles": roles, "teams": teams, "lives": lives}


class GrantForm(WhyForm):
    environment = forms.ChoiceField()
    role = forms.ChoiceField(choices=Role.choices)
    break_glass = forms.BooleanField(
        required=False,
        label="Grant it now, without approval (break-glass)",
        help_text="Only matters for approver and admin where four eyes are required. Otherwise a second person "
        "must approve the role first.",
    )
    field_order = ["role", "environment", "reason", "break_glass"]

    def __init__(self, environments: list[str], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(name, name or EVERYWHERE) for name in environments]
        field = self.fields["environment"]
        field.required = "" not in environments
        field.choices = choices  # type: ignore[attr-defined]


class AcceptForm(forms.Form):
    """A new account: a user name and a password."""

    problems: list[dict[str, Any]] = []
    username = forms.CharField(
        label="Name to log in with",
        max_length=64,
        widget=forms.TextInput(attrs={"autocomplete": "username"}),
        help_text="Letters, digits and . _ @ + -. It is shown with everything that you do.",
    )
    full_name = forms.CharField(
        label="Your name",
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )
    password = forms.CharField(
        strip=False, max_length=1_000, widget=forms.PasswordInput(attrs={"autocomplete": "new-password"})
    )
    again = forms.CharField(
        label="Repeat the password",
        strip=False,
        max_length=1_000,
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )

    def clean(self) -> dict[str, Any]:
        given = super().clean() or self.cleaned_data
        if given.pop("again", None) != given.get("password") and not self.errors:
            self.add_error("again", "The two passwords differ.")
        return given


class NewTeamForm(WhyForm):
    name = forms.SlugField(
        max_length=64, help_text="Letters, digits, hyphens and underscores.", error_messages=ADDRESS_NAME
    )
    field_order = ["name", "reason"]


class MembersForm(WhyForm):
    members = forms.ModelMultipleChoiceField(
        User.objects.order_by("username"), required=False, widget=forms.CheckboxSelectMultiple
    )
    # The keys of the members that were shown. Only the difference from them is applied.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)
    field_order = ["members", "reason"]

    def clean_seen(self) -> set[int] | None:
        keys = self.cleaned_data["seen"].split()
        if keys[:1] != ["members"]:
            return None
        return {int(key) for key in keys[1:] if key.isdecimal() and len(key) < 19}


def places_of(posted: Mapping[str, Any]) -> list[str]:
    """Return the environments in which a posted `InviteForm` gives roles, including those it did not offer."""
    return [field.removeprefix(ROLES) for field in posted if field.startswith(ROLES)]


def administered(names: set[str] | None) -> list[str]:
    """Return the environments in which an admin may grant roles, with `""` (every one) first if allowed."""
    known = places.environment_names()
    return ["", *known] if names is None else [name for name in known if name in names]
