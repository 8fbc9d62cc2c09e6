"""Forms of the policy pages. They only parse and validate; actions do the writing."""

from collections import Counter
from typing import Any

from django import forms
from django_ace import AceWidget

from controlplane.core.names import validate_text
from controlplane.web.seen import SeenForm
from pointsman.plurals import counted
from policies_app.models import Assignment, PolicyVersion


class ReasonForm(forms.Form):
    """The reason for a change, kept in the audit log."""

    # Problems of a refused document, set by `controlplane.web.pages.attempt`.
    problems: list[dict[str, Any]] = []
    reason = forms.CharField(
        validators=[validate_text],
        max_length=400,
        widget=forms.Textarea(attrs={"rows": 3, "placeholder": "What happened, and what this should change"}),
        help_text="Kept in the audit log with your name.",
    )


class VersionForm(forms.Form):
    """A policy document as text: YAML, or JSON, which is valid YAML."""

    problems: list[dict[str, Any]] = []

    text = forms.CharField(
        label="Policy document",
        max_length=65_536,
        strip=False,
        widget=AceWidget(
            theme="github",  # the script sets the mode after disabling workers
            width=None,  # set in the style sheet: inline styles are not allowed
            height=None,
            tabsize=2,
            toolbar=False,
            showprintmargin=False,
            useworker=False,  # the content security policy forbids a worker from a blob: URL
            useStrictCSP=True,
            basicautocompletion=True,
            attrs={"class": "pm-code", "rows": 28, "spellcheck": "false", "wrap": "off"},
        ),
    )
    # The newest version when the editor was opened, to detect a version saved by somebody else since.
    newest = forms.IntegerField(required=False, max_value=2**31 - 1, widget=forms.HiddenInput)
    note = forms.CharField(
        validators=[validate_text],
        required=False,
        max_length=400,
        widget=forms.TextInput(attrs={"placeholder": "What has changed in this version"}),
        help_text="Shown in the list of versions and to the approver of a rollout.",
    )

    def counted(self) -> list[str]:
        """Return how many problems of each severity there are: `2 errors`, `1 warning`. Only errors prevent saving."""
        numbers = Counter(problem["severity"] for problem in self.problems)
        return [
            counted(numbers[severity], severity) for severity in ("error", "warning") if numbers[severity]
        ]

    @property
    def has_errors(self) -> bool:
        return any(problem["severity"] == "error" for problem in self.problems)


class ServeForm(ReasonForm):
    """Serves the first version in an environment; later ones require a rollout."""

    version = forms.ModelChoiceField(PolicyVersion.objects.none(), empty_label=None)
    break_glass = forms.BooleanField(
        required=False,
        label="Serve it now, without approval (break-glass)",
        help_text="Only in an emergency: every page, the audit log and the webhooks will say so.",
    )
    field_order = ["version", "reason"]

    def __init__(self, versions: Any, *args: Any, four_eyes: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not four_eyes:
            del self.fields["break_glass"]
        self.fields["version"].queryset = versions  # type: ignore[attr-defined]
        self.fields["version"].label_from_instance = version_label  # type: ignore[attr-defined]


class PinForm(ReasonForm):
    """Pins one model for every request, chosen by its name in the served policy."""

    model_alias = forms.ChoiceField(
        label="Model", help_text="One of the models of the served version: every router knows it."
    )
    field_order = ["model_alias", "reason"]

    def __init__(self, assignment: Assignment, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        models = assignment.baseline.document["models"]
        self.fields["model_alias"].choices = [  # type: ignore[attr-defined]
            (alias, f"{alias} — {models[alias]['model']}") for alias in models
        ]


class UnpinForm(SeenForm, ReasonForm):
    """Ends the pin that was shown."""

    expected = forms.CharField(required=False, max_length=64, widget=forms.HiddenInput)  # `actions.pin_tag`
    shows_conflicts = False  # the page describes the pin


def version_label(version: PolicyVersion) -> str:
    return f"v{version.number}" + (f" — {version.note}" if version.note else "")
