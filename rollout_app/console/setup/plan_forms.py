"""Forms of the plan builder: the plan's name and description, and one form per stage."""

from collections.abc import Mapping
from typing import Any, cast

from django import forms
from django.db.models import QuerySet
from django.forms.utils import flatatt
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from controlplane.core.names import ADDRESS_NAME, validate_text
from controlplane.web.seen import SeenForm
from policies_app.forms import ReasonForm
from policies_app.models import Assignment
from rollout_app.engine.evidence import SHARE_ALL
from rollout_app.engine.plans import MAX_STAGES

_NUMBER = {"class": "pm-short"}
_POINTS = SHARE_ALL / 100  # pcm per percent


class PlanForm(forms.Form):
    """A plan. `expected`: the version of the plan that was shown; empty for a new one."""

    name = forms.SlugField(
        max_length=64, help_text="Letters, digits, hyphens and underscores.", error_messages=ADDRESS_NAME
    )
    description = forms.CharField(
        required=False, max_length=200, help_text="Shown when choosing a plan: what kind of work it is for."
    )
    reason = forms.CharField(
        validators=[validate_text],
        required=False,
        max_length=2_000,
        help_text="Kept in the audit log with your name.",
    )
    expected = forms.IntegerField(required=False, max_value=2**31 - 1, widget=forms.HiddenInput)


class RemovePlanForm(SeenForm, ReasonForm):
    """Removes the plan as it was when the form was opened."""

    shows_conflicts = False


class StageForm(forms.Form):
    """One stage in everyday units: percent, minutes, hours."""

    mode = forms.ChoiceField(
        choices=[("shadow", "shadow"), ("percentage", "share"), ("full", "full")], label="Stage"
    )
    share_percent = forms.DecimalField(
        required=False,
        min_value=0,
        max_value=100,
        decimal_places=3,
        label="Share (%)",
        widget=forms.NumberInput(attrs={**_NUMBER, "step": "any"}),
    )
    min_minutes = forms.FloatField(
        required=False, min_value=0, label="At least (min)", widget=forms.NumberInput(attrs=_NUMBER)
    )
    min_tasks = forms.IntegerField(
        required=False, min_value=0, label="At least (tasks)", widget=forms.NumberInput(attrs=_NUMBER)
    )
    max_hours = forms.FloatField(
        required=False, min_value=0, label="At most (h)", widget=forms.NumberInput(attrs=_NUMBER)
    )
    on_timeout = forms.ChoiceField(
        choices=[("hold", "hold"), ("roll_back", "roll back")], label="When the time is up", required=False
    )
    mirror = forms.DecimalField(
        required=False,
        min_value=0,
        max_value=100,
        decimal_places=3,
        label="Mirrored (%)",
        widget=forms.NumberInput(attrs={**_NUMBER, "step": "any"}),
    )
    tolerance = forms.FloatField(
        required=False,
        min_value=1,
        max_value=10,
        label="Margins ×",
        widget=forms.NumberInput(attrs={**_NUMBER, "step": "any"}),
    )
    approval = forms.BooleanField(required=False, label="needs an approval")
    skippable = forms.BooleanField(required=False, label="may be skipped")

    @property
    def share(self) -> int:
        """The share per 100,000."""
        return round(float(self.cleaned_data["share_percent"] or 0) * _POINTS)

    def stage(self) -> dict[str, Any]:
        """Return the stage as input for `plans.check`, which fills in defaults for empty fields."""
        given = dict(self.cleaned_data)
        stage: dict[str, Any] = {"mode": given["mode"], "approval": given["approval"]}
        if given["mode"] == "percentage":
            stage["share_pcm"] = self.share
            stage["skippable"] = given["skippable"]
        if given["mode"] == "shadow" and given["mirror"]:
            stage["mirror_pcm"] = round(float(given["mirror"]) * _POINTS)
        names = ("min_minutes", "min_tasks", "max_hours", "tolerance")
        stage |= {name: given[name] for name in names if given[name] is not None}
        return stage | ({"on_timeout": given["on_timeout"]} if given["on_timeout"] else {})


StageForms = forms.formset_factory(StageForm, extra=0, min_num=1, max_num=MAX_STAGES, absolute_max=MAX_STAGES)


def initial_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage as initial values of its form."""
    return {
        **stage,
        "share_percent": _plain(stage.get("share_pcm", 0) / _POINTS),
        "mirror": _plain(stage.get("mirror_pcm", 0) / _POINTS) or None,
    }


def _plain(percent: float) -> float | int:
    return int(percent) if percent == int(percent) else percent


class LongSelect(forms.Select):
    """A select for thousands of options: Django's renders a template for each one."""

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        chosen = "" if value is None else str(value)
        rows = ((key, flatatt({"selected": str(key) == chosen}), label) for key, label in self.choices)
        options = format_html_join("", '<option value="{}"{}>{}</option>', rows)
        shown = flatatt({**self.attrs, **(attrs or {}), "name": name})
        return format_html("<select{}>{}</select>", shown, options)


class TrafficForm(forms.Form):
    """Chooses the traffic for which the expected length is estimated."""

    at = forms.ModelChoiceField(
        Assignment.objects.none(), required=False, label="At the traffic of", widget=LongSelect
    )

    def __init__(self, assignments: QuerySet[Assignment], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        field = cast("forms.ModelChoiceField[Assignment]", self.fields["at"])
        field.queryset = assignments
        rows = assignments.values_list("pk", "workload__name", "environment__name")
        field.choices = [
            ("", "no workload yet"),
            *((pk, f"{workload} in {name}") for pk, workload, name in rows),
        ]
