"""Pages that try a version without traffic: a backtest over recorded tasks, and the playground."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.urls import path

from controlplane.core.errors import InvalidInput, PointsmanError
from controlplane.web.pages import console_view, fragment, page, status_of
from policies_app.catalogue.usage import dollars_per_million
from policies_app.console.lookups import environments_of, may_edit, trail, workload_for
from policies_app.models import Environment, Workload
from rollout_app.backtest import report
from rollout_app.backtest.run import Backtest, Line
from rollout_app.backtest.sources import LOGS
from rollout_app.backtest.tasks import Task
from rollout_app.backtest.threshold import cheapest_within, is_sure, of_unknown_cost
from rollout_app.outcomes import sampled_inputs
from rollout_app.rehearsal import sampled, waiting
from rollout_app.rehearsal.scenario import RECORDED

_NUSD = 10**9
EXAMPLE = '{\n  "endpoint": "/tickets/summary",\n  "prompt_tokens": 900,\n  "attributes": {}\n}'
_RESULTS = {"backtest": "rehearsal/_backtested.html", "playground": "rehearsal/_decided.html"}
_SAMPLED = "sampled:"  # before an environment's name, among the names of included tasks
_FEW = 3  # maximum number of versions that are explained in sentences


class TriedForm(forms.Form):
    """The versions to try, and a draft that is not a version yet."""

    # Not marked as optional: one of several must be chosen.
    _CHOSEN = frozenset({"versions", "draft", "recorded", "file", "request"})

    versions = forms.TypedMultipleChoiceField(coerce=int, required=False, widget=forms.CheckboxSelectMultiple)
    draft = forms.CharField(
        required=False,
        strip=False,
        max_length=65_536,
        label="Draft",
        widget=forms.Textarea(
            attrs={"rows": 8, "class": "pm-code pm-low", "spellcheck": "false", "wrap": "off"}
        ),
        help_text="A policy that is not saved yet, to compare with the versions.",
    )

    def __init__(self, workload: Workload, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        newest = list(workload.versions.defer("canonical")[:20])
        labels = [(v.number, f"v{v.number} {v.note}"[:80].strip()) for v in newest]
        self.fields["versions"].choices = labels  # type: ignore[attr-defined]
        if newest:
            self.fields["versions"].initial = [newest[0].number]
        for name in self._CHOSEN & self.fields.keys():
            self.fields[name].chosen = True  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if not data.get("versions") and not (data.get("draft") or "").strip() and not self.errors:
            raise forms.ValidationError("Choose a version, or write a draft.")
        return data


class TasksForm(TriedForm):
    """The tasks, and how to read them. The fields that a table with standard columns does not need are `folded`."""

    _FOLDED = ("mapping", "log", "latency_unit", "grade", "sweep", "score")

    def shown(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.name not in self._FOLDED]

    def folded(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.name in self._FOLDED]

    def opens(self) -> bool:
        """Return whether a folded field has a value or an error, which must not be hidden."""
        return any(field.value() or field.errors for field in self.folded())

    recorded = forms.ChoiceField(
        required=False,
        label="Included recorded tasks",
        choices=[("", "None: my own file"), *((name, name) for name in RECORDED)],
    )
    file = forms.FileField(
        required=False,
        label="Your recorded tasks",
        help_text="CSV or JSON lines, at most 4 MiB: a row is a task with every model's outcome "
        "(MODEL:success, MODEL:cost_usd, …). For larger files, and for Parquet, use manage.py backtest.",
    )
    mapping = forms.CharField(
        required=False,
        strip=False,
        max_length=65_536,
        widget=forms.Textarea(
            attrs={"rows": 4, "class": "pm-code pm-low", "spellcheck": "false", "wrap": "off"}
        ),
        help_text="YAML that maps the file's columns, if they have other names.",
    )
    log = forms.ChoiceField(
        required=False,
        label="The file is a log of",
        choices=[("", "No gateway: it is a table"), *((name, name) for name in LOGS)],
    )
    latency_unit = forms.ChoiceField(
        required=False,
        label="Langfuse's latency is in",
        choices=[("", "Not Langfuse"), ("ms", "milliseconds"), ("s", "seconds")],
    )
    grade = forms.CharField(
        required=False,
        max_length=200,
        label="Where the log stores the grade",
        widget=forms.TextInput(attrs={"placeholder": "metadata.success"}),
        help_text="LiteLLM: a dotted path. Helicone: a score's name. Without it only costs are known.",
    )


class BacktestForm(TasksForm):
    """What to compare over the tasks."""

    sweep = forms.CharField(
        required=False,
        max_length=200,
        label="Sweep one threshold",
        widget=forms.TextInput(attrs={"placeholder": "escalate:0.4:0.9:11"}),
        help_text="PLACE:LOW:HIGH:STEPS, where PLACE is escalate or the id of a rule. For one version only.",
    )
    score = forms.CharField(
        required=False,
        max_length=200,
        label="Predictor for the weak model",
        widget=forms.TextInput(attrs={"placeholder": "confidence"}),
        help_text="A request input, or MODEL:confidence, that says how likely the weak model is right. Its ranking is "
        "judged as well.",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if not self.errors and bool(data.get("file")) == bool(data.get("recorded")):
            both = " You chose both." if data.get("file") else " You chose neither."
            raise forms.ValidationError("Choose a file or included tasks." + both)
        return data


class PlaygroundForm(TasksForm):
    """One request given by its inputs, or the inputs of recorded tasks."""

    request = forms.CharField(
        label="One request",
        required=False,
        strip=False,
        max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 8, "class": "pm-code pm-low", "spellcheck": "false"}),
        help_text="The inputs as JSON: prompt_tokens, endpoint, attributes, history … Or leave it empty and use the "
        "inputs of recorded tasks: a router's task log, a gateway's log, a table.",
    )
    field_order = ["versions", "draft", "request"]

    def __init__(
        self, workload: Workload, environments: Iterable[Environment], *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(workload, *args, **kwargs)
        self.sampled_in = {f"{_SAMPLED}{one.name}": one for one in environments}
        choices = self.fields["recorded"].choices  # type: ignore[attr-defined]
        counts = sampled_inputs.numbers(workload)
        self.fields["recorded"].label = "Sampled or included requests"
        self.fields["recorded"].choices = [  # type: ignore[attr-defined]
            *choices[:1],
            *(
                (value, f"The last {counts[one.name]} that routers in {one.name} sampled")
                for value, one in self.sampled_in.items()
                if one.name in counts
            ),
            *choices[1:],
        ]

    def clean_request(self) -> dict[str, Any] | None:
        text = self.cleaned_data["request"]
        if not text.strip() or self.data.get("recorded") or self.files.get("file"):
            return None  # ignore the example, which may still be in the field
        try:
            inputs = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise forms.ValidationError(f"The request is not JSON: {error}") from None
        if not isinstance(inputs, dict):
            raise forms.ValidationError(
                'The request must be an object of inputs, such as {"prompt_tokens": 900}.'
            )
        return inputs

    def clean(self) -> dict[str, Any]:
        data = super().clean()
        if data.get("file") and data.get("recorded"):
            raise forms.ValidationError("Choose a file or included tasks, but not both.")
        if (
            not self.errors
            and data.get("request") is None
            and not data.get("file")
            and not data.get("recorded")
        ):
            raise forms.ValidationError("Write a request, or choose recorded tasks.")
        return data


@console_view("GET", "POST")
def backtest_page(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name)
    form = BacktestForm(workload, *_posted(request), auto_id=_ids(request, "backtest"))
    context: dict[str, Any] = {"workload": workload, "form": form, "may_edit": may_edit(request, workload)}
    if request.method == "POST" and form.is_valid():
        context |= _tried(form, workload)
    return _shown_as(request, "backtest", context)


@console_view("GET", "POST")
def playground(request: HttpRequest, name: str) -> HttpResponse:
    workload = workload_for(request, name)
    form = PlaygroundForm(
        workload,
        environments_of(request),
        *_posted(request),
        initial={"request": EXAMPLE},
        auto_id=_ids(request, "playground"),
    )
    context: dict[str, Any] = {"workload": workload, "form": form}
    if request.method == "POST" and form.is_valid():
        context |= _decided(form, workload)
    return _shown_as(request, "playground", context)


def _posted(request: HttpRequest) -> tuple[Any, Any]:
    """Return the posted data. The editor posts its content as `text`, which replaces the panel's draft."""
    if request.method != "POST":
        return None, None
    data = request.POST.copy()
    if "text" in data:
        data["draft"] = str(data["text"])
    return data, request.FILES


def _ids(request: HttpRequest, name: str) -> str:
    """Return the id pattern. The editor's page has other forms, so the panel needs ids of its own."""
    return f"{name}_%s" if "HX-Request" in request.headers else "id_%s"


def _shown_as(request: HttpRequest, name: str, context: Mapping[str, Any]) -> HttpResponse:
    """Show a page, or a fragment next to the editor.

    Next to the editor, the first request gets the panel and later ones only the result, so that typed text and the
    chosen file stay. htmx does not show error responses, so the status there is 200.
    """
    context = {**context, "name": name, "panel": "HX-Request" in request.headers}
    if context["panel"]:
        template = _RESULTS[name] if request.method == "POST" else "rehearsal/_panel.html"
        return fragment(request, template, context)
    return page(
        request,
        f"rehearsal/{name}.html",
        context,
        title=name.capitalize(),
        crumbs=trail(context["workload"]),
        status=status_of(context["form"]),
    )


def _decided(form: PlaygroundForm, workload: Workload) -> dict[str, Any]:
    """Decide one request with each version, or compare the versions on many."""
    data = form.cleaned_data
    try:
        documents = waiting.documents_of(workload, data["versions"], data["draft"])
        if data["request"] is not None:
            return {"decisions": waiting.decide(documents, data["request"], dollars_per_million())}
        if (environment := form.sampled_in.get(data["recorded"])) is not None:
            inputs = sampled.newest(environment, workload)
            requests = [Task(one, {}) for one in inputs]
            return {"compared": sampled.compare(documents, requests, dollars_per_million())}
        with waiting.tasks_of(_asked(form, workload, {})) as tasks:
            return {"compared": sampled.compare(documents, tasks, dollars_per_million())}
    except PointsmanError as error:
        form.add_error(None, error.detail)
    return {}


def _tried(form: BacktestForm, workload: Workload) -> dict[str, Any]:
    data = form.cleaned_data
    try:
        documents = waiting.documents_of(workload, data["versions"], data["draft"])
        result = waiting.run(_asked(form, workload, documents))
    except PointsmanError as error:
        form.add_error(None, error.detail)
        return {}
    if isinstance(result, Backtest):
        return _shown(result, float(workload.quality_bar))
    return {"agreements": [report.agreement_text(name, found) for name, found in result.items()]}


def _asked(form: TasksForm, workload: Workload, documents: Mapping[str, Any]) -> waiting.Asked:
    """Return the tasks that the form names. Raises `InvalidInput` for a file that is too large for the page."""
    data, file = form.cleaned_data, form.cleaned_data["file"]
    if file is not None and (file.size or 0) > waiting.MOST_BYTES:
        raise InvalidInput("The file is larger than 4 MiB; manage.py backtest has no limit.")
    names = ("recorded", "mapping", "log", "latency_unit", "grade", "sweep", "score")
    return waiting.Asked(
        documents=documents,
        file_name=file.name if file is not None else "",
        content=b"" if file is None else file.read(),
        prices=dollars_per_million(),
        versions=waiting.versions_of(workload, data["log"]),
        **{name: data[name] for name in names if name in data},
    )


# --- what the templates show -----------------------------------------------------------------------------


def _shown(result: Backtest, bar: float) -> dict[str, Any]:
    best = cheapest_within(result, bar)
    return {
        "result": result,
        "coverage": report.coverage(result),
        # One paragraph a version: its later sentences do not repeat its name.
        "sentences": [
            " ".join(s.strip() for s in report.sentences(line, result)) for line in _explained(result, best)
        ],
        "bar": bar,
        "best": best,
        "best_is_sure": best is not None and is_sure(best, bar),
        "of_unknown_cost": of_unknown_cost(result, bar),
        "lines": [
            *((line, line.name, _asked_first(line)) for line in result.policies),
            *((line, f"always {line.name}", []) for line in result.models),
            (result.oracle, "oracle: the cheapest model that is right", []),
        ],
        "curve": _curve(result, bar),
        "scores": result.scores,
    }


def _explained(result: Backtest, best: Line | None) -> Sequence[Line]:
    """Return the lines to explain in sentences: all of a few, or the best one of a sweep."""
    return result.policies if len(result.policies) <= _FEW else [best] if best is not None else []


def _asked_first(line: Line) -> list[tuple[str, int]]:
    return line.counts.first.most_common() if line.counts is not None else []


def _curve(result: Backtest, bar: float) -> Mapping[str, Any]:
    """Return points in US dollars per task and per cent correct, for the picture; the table shows the same."""
    return {
        "policies": _points(result.policies),
        "models": _points(result.models),
        "oracle": _points([result.oracle]),
        "frontier": [
            {"x": p.cost / _NUSD, "y": p.quality * 100, "name": f"mix at {p.name}"} for p in result.frontier
        ],
        "bar": bar * 100,
    }


def _points(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [
        {"x": line.cost_per_task.value / _NUSD, "y": line.accuracy.value * 100, "name": line.name}
        for line in lines
        if line.cost_per_task.value is not None and line.accuracy.value is not None
    ]


urlpatterns = [
    path("workloads/<slug:name>/backtest/", backtest_page, name="backtest"),
    path("workloads/<slug:name>/playground/", playground, name="playground"),
]
