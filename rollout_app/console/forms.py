"""Forms of the rollout pages. They read and check input; actions do all writes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils import timezone

from controlplane.core.names import validate_text
from policies_app.console.setup_forms import UtcDateTimeField
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app.models import Plan


class RolloutReasonForm(forms.Form):
    """The reason, and the version of the rollout that the person saw."""

    reason = forms.CharField(
        validators=[validate_text],
        max_length=2_000,
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": "Why now, and what you checked", "autofocus": True}
        ),
        help_text="Kept in the audit log with your name.",
    )
    seen = forms.IntegerField(max_value=2**31 - 1, widget=forms.HiddenInput)


class ApproveForm(RolloutReasonForm):
    """An approval of exactly what was shown; `expected_binding` is its hash."""

    expected_binding = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What is approved is shown above the form, and the focus would scroll past it.
        del self.fields["reason"].widget.attrs["autofocus"]


class AmendForm(RolloutReasonForm):
    """Change the plan (empty: it stays) or the time (empty: no time)."""

    plan = forms.ModelChoiceField(Plan.objects.all(), required=False, empty_label="unchanged")
    scheduled_for = UtcDateTimeField(
        required=False, label="Start at", help_text="UTC. Leave it empty to start by hand."
    )
    field_order = ["plan", "scheduled_for", "reason"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["plan"].label_from_instance = _plan  # type: ignore[attr-defined]

    def clean_scheduled_for(self) -> datetime | None:
        kept = "scheduled_for" not in self.changed_data  # with the seconds, which the picker does not show
        return _ahead(self.initial.get("scheduled_for") if kept else self.cleaned_data["scheduled_for"])


def _ahead(at: datetime | None) -> datetime | None:
    if at is not None and at < timezone.now():
        raise forms.ValidationError("This is in the past. Leave it empty to start by hand.")
    return at


class ProposeForm(forms.Form):
    """Propose a rollout: which version, where, by which plan, and why."""

    # The values are names and numbers, as in a link to this page, so that a link can preselect them.
    environment = forms.ModelChoiceField(Environment.objects.none(), empty_label=None, to_field_name="name")
    candidate = forms.ModelChoiceField(
        PolicyVersion.objects.none(), empty_label=None, to_field_name="number", label="Candidate version"
    )
    plan = forms.ModelChoiceField(
        Plan.objects.all(),
        empty_label=None,
        help_text="The stages and their pace. The guardrails decide whether each step is taken.",
    )
    reason = forms.CharField(
        validators=[validate_text],
        max_length=2_000,
        widget=forms.Textarea(
            attrs={"rows": 3, "placeholder": "What it should improve, and why you expect it"}
        ),
        help_text="The approver reads it, and the audit log keeps it.",
    )
    scheduled_for = UtcDateTimeField(
        required=False, label="Start at", help_text="UTC. Leave it empty to start by hand."
    )

    def __init__(
        self, workload: Workload, environments: QuerySet[Environment], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        versions = workload.versions.defer("canonical")
        choices: dict[str, Any] = {"environment": environments, "candidate": versions}
        for name, rows in choices.items():
            self.fields[name].queryset = rows  # type: ignore[attr-defined]
        self.candidates = _candidates(versions, _serving(workload, environments))
        # A served version that is posted nevertheless is refused with the reason, so the rows stay.
        self.fields["candidate"].choices = self.candidates  # type: ignore[attr-defined]
        self.fields["plan"].label_from_instance = _plan  # type: ignore[attr-defined]

    def clean_scheduled_for(self) -> datetime | None:
        return _ahead(self.cleaned_data["scheduled_for"])


def _serving(workload: Workload, environments: QuerySet[Environment]) -> dict[str, int]:
    """Map the environments to the number of the version that they serve."""
    served = workload.assignments.filter(environment__in=environments)
    return dict(served.order_by().values_list("environment__name", "baseline__number"))


def _candidates(versions: QuerySet[PolicyVersion], serving: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return the versions to choose from: those that some environment does not serve, with the others' names."""
    found = []
    for version in versions:
        places = sorted(name for name, number in serving.items() if number == version.number)
        if len(places) < len(serving):
            label = _version(version)
            found.append((version.number, f"{label} (served in {', '.join(places)})" if places else label))
    return found


def _version(version: PolicyVersion) -> str:
    return f"v{version.number}" + (f" — {version.note}" if version.note else "")


def _plan(plan: Plan) -> str:
    return f"{plan.name} — {plan.description}" if plan.description else plan.name
