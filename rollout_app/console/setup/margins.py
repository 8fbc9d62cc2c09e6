"""Pages of a workload's guardrails: the margins, a form for each, and a preview on past rollouts."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from django import forms
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.core import clock
from controlplane.core.errors import NotFound, PointsmanError
from controlplane.core.names import validate_text
from controlplane.web.pages import attempt, console_view, done, fragment, page, status_of
from controlplane.web.seen import SeenForm
from policies_app.console.lookups import may_edit, trail, workload_for
from policies_app.forms import ReasonForm
from policies_app.models import Workload
from rollout_app import actions
from rollout_app.console.template_tags import margins_of
from rollout_app.console.views import visible
from rollout_app.engine.guardrails import guardrails_for
from rollout_app.engine.metrics import Metric
from rollout_app.models import GuardrailOverride, Rollout
from rollout_app.rehearsal.dry_run import dry_run

_REHEARSED = 3  # past rollouts, each judged again from its minutes
# Maximum minutes of traffic to judge again per response, about a millisecond each: while typing, and on
# request.
_PROMPT, _PATIENT = 1_500, 15_000


class MarginForm(SeenForm):
    """A margin in everyday units, 2 (points) or 10 (percent of the baseline's), and an optional absolute bound."""

    expected = forms.CharField(required=False, max_length=200, widget=forms.HiddenInput)  # `guardrails_tag`

    enabled = forms.BooleanField(
        required=False, label="Judge it", help_text="Off: it neither holds a rollout nor rolls it back."
    )
    margin = forms.DecimalField(min_value=0, max_digits=9, decimal_places=4)
    weight = forms.DecimalField(
        min_value=0,
        max_value=1,
        max_digits=6,
        decimal_places=4,
        help_text="How much it counts in the decision to roll back: above 0, up to 1. Weights are scaled to sum to 1.",
    )
    bound = forms.DecimalField(required=False, min_value=0, max_digits=19, decimal_places=9)
    reason = forms.CharField(
        validators=[validate_text],
        required=False,
        max_length=2_000,
        help_text="Kept in the audit log with your name. Required if the change weakens a guardrail.",
    )

    def __init__(self, metric: Metric, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        unit = "percent of the baseline's" if metric.spec.is_ratio else "points"
        self.fields["margin"].label = f"Margin ({unit})"
        self.fields[
            "margin"
        ].help_text = f"How much worse a candidate may be. Standard: {metric.spec.margin * 100:g}."
        self._of = metric
        limit = "Never below" if metric.spec.lower_is_worse else "Never more than"
        self.fields["bound"].label = f"{limit} ({_bound_unit(metric)})"
        self.fields[
            "bound"
        ].help_text = "Whatever the baseline does. Empty: judged against the baseline only."
        for name in ("margin", "weight", "bound"):
            self.fields[name].widget.attrs["step"] = "any"

    def clean_bound(self) -> Any:
        bound = self.cleaned_data["bound"]
        kept = bound is None or "bound" not in self.changed_data
        if kept or self._of == Metric.COST_PER_SUCCESS or 0 < bound < 100:
            return bound
        raise forms.ValidationError("Above 0 and below 100; empty for no bound.")

    @property
    def values(self) -> tuple[bool, float, float]:
        """Return (enabled, margin, weight) as input for `actions.set_guardrail`."""
        given = self.cleaned_data
        return given["enabled"], float(given["margin"] / 100), float(given["weight"])

    @property
    def given_bound(self) -> float | None:
        bound = self.cleaned_data["bound"]
        return None if bound is None else float(bound * _bound_scale(self._of))

    def overrides(self, had_bound: float | None) -> list[dict[str, Any]]:
        """Return the overrides to judge rollouts by. `had_bound`: the stored bound."""
        enabled, margin, weight = self.values
        bound = self.given_bound
        changed: list[dict[str, Any]] = [
            {"metric": self._of.value, "enabled": enabled, "margin": margin, "weight": weight}
        ]
        if bound is not None or had_bound is not None:
            on = bound is not None and enabled
            changed.append(
                {"metric": self._of.value, "bound": bound or had_bound, "weight": weight, "enabled": on}
            )
        return changed


def _bound_unit(metric: Metric) -> str:
    if metric == Metric.COST_PER_SUCCESS:
        return "dollars per success"
    return "percent of the full score" if metric.spec.lower_is_worse else "percent of tasks"


def _bound_scale(metric: Metric) -> Decimal:
    """Return the factor from the entered value to the stored one: nano-dollars, or a share."""
    return Decimal(10**9) if metric == Metric.COST_PER_SUCCESS else Decimal("0.01")


@console_view("GET")
def margins(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name)
    rows = list(workload.guardrails.all())
    off = [Metric(row.metric) for row in rows if not row.enabled]
    context = {
        "workload": workload,
        "rows": margins_of(workload),
        "off": off,
        "unused": [m for m in Metric if not m.spec.weight and m not in [Metric(row.metric) for row in rows]],
        "may_edit": may_edit(request, workload),
    }
    return page(request, "margins/margins.html", context, title="Guardrails", crumbs=trail(workload))


@console_view("GET", "POST")
def edit_margin(request: HttpRequest, name: str, metric: str) -> HttpResponse:
    workload = workload_for(request, name, edit=True)
    found = _metric(metric)
    form = MarginForm(found, request.POST or None, initial=_initial(workload, found))
    asks = "rehearse" in request.POST
    if not asks and attempt(request, form, _set, workload, found, form) is not None:
        return done(
            request,
            f"{found.spec.label}: saved. It applies to rollouts that are proposed or amended from now on.",
            to=_listed(workload),
        )
    context = {
        "workload": workload,
        "metric": found,
        "form": form,
        "back": _listed(workload),
        "own": workload.guardrails.filter(metric=metric, bound=None).exists(),
        "answers": _rehearsed(request, workload, found, form, _PATIENT) if asks else None,
    }
    crumbs, status = [*trail(workload), ("Guardrails", _listed(workload))], 200 if asks else status_of(form)
    return page(request, "margins/margin.html", context, title=found.spec.label, crumbs=crumbs, status=status)


@transaction.atomic
def _set(
    workload: Workload, metric: Metric, form: MarginForm, *, actor: Any, reason: str, expected: str, **_: Any
) -> bool:
    """Store the changed values of margin and bound, all or none. Unchanged ones stay as they are stored: the form
    rounds them, and shows the standard ones of a workload without its own.
    """
    changed = set(form.changed_data)
    own, absolute = actions.own_guardrails(workload, metric.value, actor=actor, expected=expected)
    typed = dict(zip(("enabled", "margin", "weight"), form.values, strict=True)) | {"bound": form.given_bound}
    by = {"actor": actor, "reason": reason}
    both = bool(changed & {"enabled", "weight"})  # they apply to the margin and to the bound
    if "margin" in changed or (both and (own or metric.spec.weight or not absolute)):
        actions.set_guardrail(workload, metric.value, **_values(own, typed, changed, "margin"), **by)
    if "bound" in changed and typed["bound"] is None:
        actions.remove_guardrail(workload, metric.value, absolute=True, **by)
    elif "bound" in changed or (both and absolute):
        values = _values(absolute, typed, changed, "bound")
        if absolute is None and own and "weight" not in changed:
            values["weight"] = own.weight  # the one that is shown
        actions.set_guardrail(workload, metric.value, **values, **by)
    return True


def _values(
    row: GuardrailOverride | None, typed: dict[str, Any], changed: set[str], limit: str
) -> dict[str, Any]:
    """Return what to store with a margin or bound (`limit`): typed values if they were changed, else those of its
    row."""
    stored = {name: getattr(row, name, None) for name in (limit, "weight")}
    values = {name: typed[name] if name in changed else value for name, value in stored.items()}
    as_typed = limit in changed or "enabled" in changed
    return values | {"enabled": typed["enabled"] if as_typed or row is None else row.enabled}


def _bound(workload: Workload, metric: Metric) -> float | None:
    """Return the stored absolute bound."""
    row = workload.guardrails.filter(metric=metric.value, bound__isnull=False).first()
    return None if row is None else row.bound


@console_view("POST")
def rehearse_margin(request: HttpRequest, name: str, metric: str) -> HttpResponse:
    """Show what the typed margin would have done to the latest rollouts. Stores nothing."""
    workload, found = workload_for(request, name), _metric(metric)
    form = MarginForm(found, request.POST)
    context = {"answers": _rehearsed(request, workload, found, form, _PROMPT), "form": form}
    return fragment(request, "margins/_rehearsal.html", context)


@console_view("GET", "POST")
def reset_margin(request: HttpRequest, name: str, metric: str) -> HttpResponse:
    workload, found = workload_for(request, name, edit=True), _metric(metric)
    form = ReasonForm(request.POST or None)
    if attempt(request, form, _reset, workload, metric):
        return done(request, f"{found.spec.label}: back to the standard margin.", to=_listed(workload))
    title = f"Use the standard margin for {found.spec.phrase}"
    unit = "percent of the baseline's" if found.spec.is_ratio else "points"
    about = f"The standard is {found.spec.margin * 100:g} {unit}."
    context = {
        "heading": title,
        "about": about,
        "button": "Use the standard",
        "form": form,
        "back": _listed(workload),
    }
    crumbs = [*trail(workload), ("Guardrails", _listed(workload))]
    return page(request, "console/sheet.html", context, title=title, crumbs=crumbs, status=status_of(form))


def _reset(workload: Workload, metric: str, **values: Any) -> bool:
    actions.remove_guardrail(workload, metric, **values)
    return True


def _metric(name: str) -> Metric:
    try:
        return Metric(name)
    except ValueError:
        raise NotFound(f"There is no guardrail on {name!r}.") from None


def _initial(workload: Workload, metric: Metric) -> dict[str, Any]:
    own = (
        workload.guardrails.filter(metric=metric.value, bound=None)
        .values("metric", "margin", "weight")
        .first()
    )
    judged = guardrails_for([{**(own or {"metric": metric.value}), "enabled": True}])
    guardrail = next(each for each in judged if each.name == metric.value)
    rows = {row.bound is not None: row for row in workload.guardrails.filter(metric=metric.value)}
    stored, absolute = rows.get(False), rows.get(True)
    weight = stored.weight if stored and stored.weight is not None else guardrail.weight
    shown = stored or absolute
    enabled = shown.enabled if shown else metric.spec.weight > 0
    bound = None if absolute is None else absolute.bound
    return {
        "expected": actions.guardrails_tag(rows.values()),
        "enabled": enabled,
        "margin": _plain(guardrail.margin * 100),
        "weight": _plain(weight),
        "bound": None if bound is None else _plain(bound / float(_bound_scale(metric)), 9),
    }


def _plain(number: float, places: int = 4) -> Decimal:
    """Return the number without trailing zeros, equal to what an unchanged form posts."""
    return Decimal(f"{number:.{places}f}".rstrip("0").rstrip("."))


def _rehearsed(
    request: HttpRequest, workload: Workload, metric: Metric, form: MarginForm, minutes: int
) -> Sequence[tuple[Rollout, str, bool | None]]:
    """Return (rollout, what the margin would have done, whether it would have rolled back) for the latest rollouts."""
    if form.is_bound:
        if not form.is_valid():
            return ()
        overrides = form.overrides(_bound(workload, metric))
    else:
        initial = form.initial
        overrides = [
            {
                "metric": metric.value,
                "margin": float(initial["margin"]) / 100,
                "weight": float(initial["weight"]),
            }
        ]
    ran = visible(request).filter(workload=workload).exclude(started_at=None).order_by("-started_at")
    too_long = _TOO_LONG if minutes == _PROMPT else _NOT_JUDGED
    answers: list[tuple[Rollout, str, bool | None]] = []
    for rollout in ran[:_REHEARSED]:
        length = _minutes(rollout)
        if length > minutes:
            answers.append((rollout, too_long, None))
            continue
        minutes -= length
        answers.append((rollout, *_answer(rollout, overrides)))
    return answers


_TOO_LONG = "It was long: choose “Try on past rollouts” to evaluate its minutes with this margin."
_NOT_JUDGED = "It was too long to evaluate here. The dry run on the command line has no time limit."


def _minutes(rollout: Rollout) -> int:
    end = rollout.ended_at or clock.now()
    return int((end - (rollout.started_at or end)).total_seconds() // 60)


def _answer(rollout: Rollout, overrides: Sequence[dict[str, Any]]) -> tuple[str, bool | None]:
    """Return the sentence, and whether it would have rolled back; None if nothing could be judged."""
    try:
        result = dry_run(rollout, overrides)
    except PointsmanError as error:
        return error.detail, None
    return result["sentence"], result["rolled_back"] is not None if result["windows"] else None


def _listed(workload: Workload) -> str:
    return reverse("console:margins", args=[workload.name])


urlpatterns = [
    path("workloads/<slug:name>/guardrails/", margins, name="margins"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/", edit_margin, name="edit_margin"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/rehearse/", rehearse_margin, name="rehearse_margin"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/reset/", reset_margin, name="reset_margin"),
]
