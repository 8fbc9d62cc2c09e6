"""Pages of a workload's guardrails: the margins, a form for each, and what another margin would have done."""

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse

from controlplane.core import clock
from controlplane.core.errors import NotFound, PointsmanError
from controlplane.web.pages import attempt, console_view, done, fragment, page, status_of
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

_REHEARSED = 3  # of the last rollouts: each is judged anew from its minutes
# Minutes of traffic that are judged anew in one answer, about a millisecond each: while one types, and when asked to.
_PROMPT, _PATIENT = 1_500, 15_000


class MarginForm(forms.Form):
    """A margin as people write it: 2 (points), or 10 (percent of the baseline's)."""

    enabled = forms.BooleanField(
        required=False, label="Judge it", help_text="Off: it neither holds nor rolls back."
    )
    margin = forms.DecimalField(min_value=0, max_digits=9, decimal_places=4)
    weight = forms.DecimalField(
        min_value=0,
        max_value=1,
        max_digits=6,
        decimal_places=4,
        help_text="Its part in the decision to roll back, above 0 and up to 1; the parts are scaled to add up to 1.",
    )
    reason = forms.CharField(
        required=False,
        max_length=2_000,
        help_text="Kept in the audit log with your name. What weakens a guardrail asks for it.",
    )

    def __init__(self, metric: Metric, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        unit = "percent of the baseline's" if metric.spec.is_ratio else "points"
        self.fields["margin"].label = f"Margin ({unit})"
        self.fields[
            "margin"
        ].help_text = f"How much worse a candidate may be. Standard: {metric.spec.margin * 100:g}."
        for name in ("margin", "weight"):
            self.fields[name].widget.attrs["step"] = "any"

    def override(self) -> dict[str, Any]:
        """As `actions.set_guardrail` takes it."""
        given = self.cleaned_data
        return {
            "enabled": given["enabled"],
            "margin": float(given["margin"]) / 100,
            "weight": float(given["weight"]),
        }


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
            f"{found.spec.label}: saved. It guards rollouts from the next start on.",
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


def _set(
    workload: Workload, metric: Metric, form: MarginForm, *, actor: Any, reason: str, **_: Any
) -> GuardrailOverride:
    return actions.set_guardrail(workload, metric.value, actor=actor, reason=reason, **form.override())


@console_view("POST")
def rehearse_margin(request: HttpRequest, name: str, metric: str) -> HttpResponse:
    """What the typed margin would have done to the last rollouts; nothing is kept."""
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
    title = f"Back to the standard margin of {found.spec.phrase}"
    about = f"The standard is {found.spec.margin * 100:g}."
    context = {
        "heading": title,
        "about": about,
        "button": "Take it back",
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
    stored = workload.guardrails.filter(metric=metric.value, bound=None).first()
    weight = stored.weight if stored and stored.weight is not None else guardrail.weight
    enabled = stored.enabled if stored else True
    return {"enabled": enabled, "margin": _plain(guardrail.margin * 100), "weight": _plain(weight)}


def _plain(number: float) -> str:
    return f"{round(number, 4):g}"


def _rehearsed(
    request: HttpRequest, workload: Workload, metric: Metric, form: MarginForm, minutes: int
) -> Sequence[tuple[Rollout, str, bool | None]]:
    """(rollout, what the margin would have done, whether it would have gone back) of the last ones that ran."""
    if form.is_bound:
        if not form.is_valid():
            return ()
        override = {"metric": metric.value, **form.override()}
    else:
        initial = form.initial
        override = {
            "metric": metric.value,
            "margin": float(initial["margin"]) / 100,
            "weight": float(initial["weight"]),
        }
    ran = visible(request).filter(workload=workload).exclude(started_at=None).order_by("-started_at")
    too_long = _TOO_LONG if minutes == _PROMPT else _NOT_JUDGED
    answers: list[tuple[Rollout, str, bool | None]] = []
    for rollout in ran[:_REHEARSED]:
        length = _minutes(rollout)
        if length > minutes:
            answers.append((rollout, too_long, None))
            continue
        minutes -= length
        answers.append((rollout, *_answer(rollout, override)))
    return answers


_TOO_LONG = "It is a long one: ask “What would it have done?” to have its minutes judged anew."
_NOT_JUDGED = "It ran for too long to be judged anew here; the dry run on the command line takes its time."


def _minutes(rollout: Rollout) -> int:
    end = rollout.ended_at or clock.now()
    return int((end - (rollout.started_at or end)).total_seconds() // 60)


def _answer(rollout: Rollout, override: dict[str, Any]) -> tuple[str, bool]:
    try:
        told = dry_run(rollout, [override])
    except PointsmanError as error:
        return error.detail, False
    return told["sentence"], told["rolled_back"] is not None


def _listed(workload: Workload) -> str:
    return reverse("console:margins", args=[workload.name])


urlpatterns = [
    path("workloads/<slug:name>/guardrails/", margins, name="margins"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/", edit_margin, name="edit_margin"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/rehearse/", rehearse_margin, name="rehearse_margin"),
    path("workloads/<slug:name>/guardrails/<slug:metric>/reset/", reset_margin, name="reset_margin"),
]
