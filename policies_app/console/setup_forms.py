"""Forms for setting up environments, workloads, models and keys.

A form of an existing object carries the version that was shown (`expected`). If somebody else saved a newer one,
`conflicts` shows the saved values next to the typed ones, and a second save overwrites them.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.db import models
from django.forms.models import model_to_dict
from django.utils import timezone

from controlplane.access.models import SCOPES, Key, Team
from controlplane.core.names import ADDRESS_NAME, validate_text
from controlplane.web.seen import SeenForm, kept_line, shown_value
from policies_app.forms import ReasonForm
from policies_app.models import Environment, Model, Workload

NUSD = 10**9
REASON = forms.CharField(
    validators=[validate_text],
    required=False,
    max_length=400,
    widget=forms.TextInput(attrs={"placeholder": "Why"}),
    help_text="Kept in the audit log with your name. Some changes require it.",
)


class DollarsField(forms.DecimalField):
    """US dollars on the page, whole nano-US-dollars in the data."""

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=0, max_digits=19, decimal_places=9, **options)
        self.widget.attrs["step"] = "any"

    def prepare_value(self, value: Any) -> Any:
        if not isinstance(value, int):
            return value
        dollars = f"{Decimal(value) / NUSD:f}"
        return dollars.rstrip("0").rstrip(".") if "." in dollars else dollars  # not 10 as 1

    def clean(self, value: Any) -> Any:
        dollars = super().clean(value)
        return None if dollars is None else round(dollars * NUSD)

    def has_changed(self, initial: Any, data: Any) -> bool:
        try:
            return bool(self.clean(data) != initial)
        except forms.ValidationError:
            return True


class UtcDateTimeField(forms.DateTimeField):
    """A time in UTC, entered with the browser's date picker."""

    def __init__(self, **options: Any) -> None:
        widget = forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")
        super().__init__(widget=widget, **options)

    def to_python(self, value: Any) -> datetime | None:
        """Return the time in UTC. A typed offset may lead out of the years 1 to 9999."""
        at = super().to_python(value)
        try:
            return at and at.astimezone(UTC)
        except OverflowError:
            raise forms.ValidationError(self.error_messages["invalid"], code="invalid") from None

    def has_changed(self, initial: Any, data: Any) -> bool:
        # The picker has no seconds.
        if isinstance(initial, datetime):
            initial = initial.replace(second=0, microsecond=0)
        return super().has_changed(initial, data)


class VersionedForm(forms.ModelForm):  # type: ignore[type-arg]  # a mixin for forms of several models
    """A form of a row that people edit. For an existing row it returns the changes and the version they are based
    on."""

    expected = forms.IntegerField(required=False, max_value=2**31 - 1, widget=forms.HiddenInput)
    reason = REASON
    stale = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.before = model_to_dict(self.instance)
        self.fields["expected"].initial = self.instance.version if self.instance.pk else None
        if self.instance.pk and "name" in self.fields:
            del self.fields["name"]

    def validate_unique(self) -> None:
        """Leave this to the action, which refuses a taken name with an audit entry (`AlreadyExists`)."""

    @property
    def changes(self) -> dict[str, Any]:
        """Return the fields that differ from the saved ones."""
        names = [name for name in self.changed_data if name not in ("reason", "expected")]
        return {name: self.cleaned_data[name] for name in names if not self._is_same_line(name)}

    def _is_same_line(self, name: str) -> bool:
        before = self.before.get(name)
        return isinstance(before, str) and kept_line(self.cleaned_data[name], before) == before

    @property
    def conflicts(self) -> list[tuple[str, str, str]]:
        """Return (field, saved value, typed value) where they differ. Reading this lets the next save pass."""
        if not self.stale:
            return []
        row = type(self.instance)._default_manager.values_list("version", flat=True)
        self.data = {**self.data.dict(), "expected": str(row.get(pk=self.instance.pk))}  # type: ignore[attr-defined]
        return [
            (
                str(self[name].label),
                shown_value(self, name, self.before[name]),
                shown_value(self, name, value),
            )
            for name, value in self.changes.items()
            if name in self.before
        ]


class EnvironmentForm(VersionedForm):
    class Meta:
        model = Environment
        fields = ["name", "description", "four_eyes", "poll_interval_ms"]
        error_messages = {"name": ADDRESS_NAME}
        labels = {"four_eyes": "Four eyes", "poll_interval_ms": "Poll interval (ms)"}
        help_texts = {
            "name": "Letters, digits, hyphens and underscores. Used in addresses and keys.",
            "four_eyes": "A rollout and a first version here need another person's approval.",
            "poll_interval_ms": "How often routers poll. Long polls are answered at once after a change. "
            "200 to 300,000; above 60,000 it needs a reason.",
        }

    field_order = ["name", "description", "four_eyes", "poll_interval_ms", "reason"]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk and self.instance.four_eyes:
            # Switching it off needs a second person and has its own form.
            del self.fields["four_eyes"]


class FreezeForm(SeenForm):
    """A period in which nothing starts or advances."""

    frozen_from = UtcDateTimeField(
        required=False, label="From", help_text="UTC. Leave it empty to freeze now."
    )
    frozen_until = UtcDateTimeField(label="Until", help_text="UTC. The freeze ends automatically.")
    freeze_reason = forms.CharField(
        validators=[validate_text],
        max_length=200,
        label="Why",
        widget=forms.TextInput(attrs={"placeholder": "Black Friday"}),
        help_text="Shown on every rollout that it holds.",
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        for name in {"frozen_from", "frozen_until"} - set(self.changed_data):
            values[name] = self.initial.get(name)  # with the seconds, which the picker does not show
        saved_reason = self.initial.get("freeze_reason", "")
        values["freeze_reason"] = kept_line(values.get("freeze_reason", ""), saved_reason)
        begins, ends = values.get("frozen_from"), values.get("frozen_until")
        if ends and ends <= timezone.now():
            self.add_error("frozen_until", "This is in the past.")
        elif begins and ends and begins >= ends:
            self.add_error("frozen_until", "It ends before it begins.")
        return values


class ThawForm(SeenForm, ReasonForm):
    """Ends the freeze that was shown."""

    shows_conflicts = False  # the page describes the freeze


class WorkloadForm(VersionedForm):
    class Meta:
        model = Workload
        fields = [
            "name", "description", "owner", "task_type", "difficulty", "quality_bar", "success_signal",
            "outcome_lag_s", "unit", "latency_tolerance_ms", "mirror_budget_usd", "retryable",
            "escalatable", "batchable",
        ]  # fmt: skip
        error_messages = {"name": ADDRESS_NAME}
        labels = {
            "owner": "Owning team",
            "quality_bar": "Quality bar",
            "outcome_lag_s": "Outcome lag (seconds)",
            "unit": "Unit of assignment",
            "latency_tolerance_ms": "Latency tolerance (ms)",
            "mirror_budget_usd": "Mirror budget (USD a day)",
            "retryable": "May be retried",
            "escalatable": "May be escalated",
            "batchable": "May be batched",
        }
        help_texts = {
            "name": "Letters, digits, hyphens and underscores. Routers request it by this name.",
            "owner": "Its editors write the policy.",
            "task_type": "summary, extraction, classification, …",
            "quality_bar": "The share of tasks that must succeed, 0 to 1.",
            "success_signal": "What shows that a task succeeded.",
            "outcome_lag_s": "How long until an outcome may be judged: graders and users answer late.",
            "unit": "What stays on one arm of a rollout.",
            "mirror_budget_usd": "What mirrored tasks of one rollout may cost per UTC day. Empty: no limit.",
            "latency_tolerance_ms": "A slower task counts as slow. Empty: measured before each rollout.",
        }

    field_order = [*Meta.fields, "reason"]

    def __init__(self, teams: "models.QuerySet[Team]", *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        owner = self.fields["owner"]
        owner.queryset, owner.empty_label = teams, None  # type: ignore[attr-defined]
        self.fields["quality_bar"].widget.attrs.update(min=0, max=1)
        for name in ("difficulty", "success_signal", "unit"):
            field = self.fields[name]
            field.choices = [(value, str(label).capitalize()) for value, label in field.choices]  # type: ignore[attr-defined]


class CatalogueModelForm(VersionedForm):
    """Prices in US dollars per million tokens, as providers publish them."""

    input_nusd_per_mtok = DollarsField(label="Input, $ per million tokens", required=False)
    output_nusd_per_mtok = DollarsField(label="Output, $ per million tokens", required=False)
    cache_read_nusd_per_mtok = DollarsField(label="Cache read, $", required=False)
    cache_write_nusd_per_mtok = DollarsField(label="Cache write, $", required=False)
    batch_input_nusd_per_mtok = DollarsField(label="Batch input, $", required=False)
    batch_output_nusd_per_mtok = DollarsField(label="Batch output, $", required=False)

    class Meta:
        model = Model
        fields = [
            "name", "input_nusd_per_mtok", "output_nusd_per_mtok", "cache_read_nusd_per_mtok",
            "cache_write_nusd_per_mtok", "batch_input_nusd_per_mtok", "batch_output_nusd_per_mtok",
            "price_source", "context_window", "quality", "retires_on", "enabled",
        ]  # fmt: skip
        widgets = {"retires_on": forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d")}
        labels = {
            "price_source": "Where the prices come from",
            "context_window": "Context window (tokens)",
            "quality": "Recorded success",
            "retires_on": "Retires on",
            "enabled": "May be used by new versions",
        }
        help_texts = {
            "name": "provider/model, as your router names it.",
            "quality": "The share of tasks it gets right, 0 to 1, if known.",
            "retires_on": "The provider's last day for it, if announced.",
        }

    field_order = [*Meta.fields, "reason"]


# --- keys ---------------------------------------------------------------------------------------------

_LIVES = [("", "no end"), ("30", "30 days"), ("90", "90 days"), ("365", "a year")]


class KeyForm(forms.Form):
    """A key for a router or a script. The action checks what it may do and where."""

    kind = forms.ChoiceField(choices=Key.Kind.choices, widget=forms.RadioSelect, initial=Key.Kind.ROUTER)
    # Any name is accepted here; the action refuses environments that the person may not use.
    environment = forms.CharField(
        required=False, widget=forms.Select, help_text="A router key belongs to one environment."
    )
    label = forms.CharField(
        max_length=120,
        label="What is it for?",
        widget=forms.TextInput(attrs={"placeholder": "the gateway in eu-west"}),
    )
    scopes = forms.MultipleChoiceField(
        required=False,
        choices=[(role, text.capitalize()) for role, text in SCOPES],
        widget=forms.CheckboxSelectMultiple,
        label="Roles",
        help_text="Some of your own roles, or only agent.",
    )
    workloads = forms.MultipleChoiceField(
        required=False,
        widget=forms.SelectMultiple(attrs={"size": 5}),
        label="Only these workloads",
        help_text="None selected: all workloads of the environment.",
    )
    lives = forms.ChoiceField(required=False, choices=_LIVES, label="Expires after")
    reason = REASON

    def __init__(
        self, environments: Iterable[str], workloads: Sequence[str], *args: Any, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        places = [(name, name) for name in environments]
        self.fields["environment"].initial = places[0][0] if places else ""
        self.fields["environment"].widget.choices = [*places, ("", "every environment (admin keys)")]
        self.fields["workloads"].choices = [(name, name) for name in workloads]  # type: ignore[attr-defined]
        for name in ("environment", "scopes", "lives"):  # a select has a value, and an admin key needs a role
            self.fields[name].chosen = True  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        values = super().clean() or self.cleaned_data
        days = values.pop("lives", "")
        values["expires_at"] = timezone.now() + timedelta(days=int(days)) if days else None
        return values


class RotateForm(forms.Form):
    overlap_hours = forms.TypedChoiceField(
        coerce=int,
        choices=[(24, "a day"), (1, "an hour"), (72, "three days"), (168, "a week"), (0, "not at all")],
        label="How long the old key keeps working",
    )
    reason = REASON
