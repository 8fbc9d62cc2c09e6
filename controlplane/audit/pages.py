"""Pages of the audit log: who changed what, when, why, and on what evidence."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Any, cast

from django import forms
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import path, register_converter, reverse
from django.urls.converters import IntConverter

from controlplane.access import permissions
from controlplane.access.models import Key, Role
from controlplane.access.selectors import entries_visible_to
from controlplane.audit import exports, sentences, verification
from controlplane.audit.entries import body_of
from controlplane.audit.log import HEAD
from controlplane.audit.models import Checkpoint, Entry, Head
from controlplane.core.errors import InvalidInput, NotFound
from controlplane.web.display import share
from controlplane.web.pages import actor, console_view, must, page, paginated, person

# The page of a target, by kind. Targets of other kinds are shown as text.
_PAGES = {
    "rollout": lambda found: reverse("console:rollout", args=[found]),
    "workload": lambda found: reverse("console:workload", args=[found]),
    "version": lambda found: reverse("console:version", args=found.rsplit("/", 1)),
    "assignment": lambda found: reverse("console:workload", args=found.split("/")[1:]),
    "environment": lambda found: reverse("console:fleet_of", args=[found]),
    "receiver": lambda found: reverse("console:receiver", args=[found]),
    "break_glass": lambda found: reverse("console:review_break_glass", args=[found]),
}


def _picked(example: str, options: str) -> forms.CharField:
    """Return a text field with suggestions; `options` is the id of the datalist."""
    widget = forms.TextInput(attrs={"placeholder": example, "list": options})
    return forms.CharField(required=False, widget=widget)


class FilterForm(forms.Form):
    """The filters of the list. Dates are whole days in UTC, both inclusive."""

    actor = _picked("Name", "audit-people")
    action = forms.CharField(required=False, widget=forms.Select)
    environment = _picked("production", "audit-environments")
    workload = _picked("Name", "audit-workloads")
    target = forms.CharField(required=False, widget=forms.TextInput(attrs={"placeholder": "Name or id"}))
    outcome = forms.ChoiceField(
        required=False, choices=[("", "Any"), ("done", "Done"), ("refused", "Refused")]
    )
    since = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(required=False, widget=forms.DateInput(attrs={"type": "date"}))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["action"].widget.choices = _actions(self.data.get("action", ""))

    def narrow(self, entries: QuerySet[Entry]) -> QuerySet[Entry]:
        """Return the entries that match all filters. An invalid value matches nothing and shows a form error."""
        self.full_clean()
        if self.errors:
            return entries.none()
        given = {name: value for name, value in self.cleaned_data.items() if value}
        lookups = {
            "action": "action__startswith",
            "environment": "environment",
            "workload": "workload",
            "outcome": "outcome",
            "since": "at__gte",
            "until": "at__lte",
        }
        # Whole days in UTC, as moments: a comparison of dates could not use the index.
        for name, edge in (("since", time.min), ("until", time.max)):
            if name in given:
                given[name] = datetime.combine(given[name], edge, UTC)
        entries = entries.filter(**{lookups[name]: given[name] for name in given if name in lookups})
        if actor := given.get("actor"):
            # A person's keys act for them; old entries name only the key.
            keys = Key.objects.filter(user__username__icontains=actor).values("key_id")
            by_key = Q(actor_kind="key", actor_id__in=keys)
            entries = entries.filter(Q(actor_label__icontains=actor) | by_key)
        if target := given.get("target"):
            entries = entries.filter(Q(target_id__icontains=target) | Q(workload=target) | _exactly(target))
        return entries


def _exactly(target: str) -> Q:
    """Match one target by its kind and id, as an entry's page shows them: `user 12`. The pages' links use this: part
    of an id would also match others."""
    kind, _, found = target.partition(" ")
    exact = Q(target_kind=kind, target_id=found)
    return exact | Q(workload=found) if kind == "workload" and found else exact


def _actions(given: str) -> list[Any]:
    """Return the action choices, grouped by target, in words. `given` is added if the link names an unknown action."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for action, verb in sentences.VERBS.items():
        kind = action.partition(".")[0]
        words = kind.replace("_", " ").capitalize()
        groups.setdefault(words, [(f"{kind}.", f"{words}: anything")]).append((action, verb.rstrip(":")))
    known = {action for group in groups.values() for action, _ in group}
    return [("", "Any"), *([(given, given)] if given and given not in known else []), *groups.items()]


def visible(request: HttpRequest) -> QuerySet[Entry]:
    """Return the entries that this person may see, without their bodies."""
    must(request, None, permissions.ANYWHERE)
    return entries_visible_to(actor(request), person(request)).defer("body")


@console_view("GET")
def entries(request: HttpRequest) -> HttpResponse:
    form = FilterForm(request.GET)
    rows = paginated(request, form.narrow(visible(request)))
    narrowed = any(request.GET.get(name) for name in form.fields)
    told = sentences.told(list(rows))
    known = sentences.names_of([entry for entry, _ in told if entry.outcome == "refused"])
    listed = [(entry, sentence, target_page(entry, known)) for entry, sentence in told]
    context = {
        "form": form,
        "rows": rows,
        "listed": listed,
        "narrowed": narrowed,
        **_suggestions(request),
    }
    return page(request, "audit/entries.html", context, title="Audit")


_MOST_OPTIONS, _OF_THE_NEWEST = 200, 2_000
_SUGGESTED = {
    "audit-people": "actor_label",
    "audit-environments": "environment",
    "audit-workloads": "workload",
}


def _suggestions(request: HttpRequest) -> dict[str, Any]:
    """Return the filter's suggestions, `options`: datalist id → values. `limits`: what they were taken from, if there
    may be more. Listing every value would read the whole log.
    """
    newest = list(visible(request).values_list(*_SUGGESTED.values())[:_OF_THE_NEWEST])
    found = {
        name: list(dict.fromkeys(row[at] for row in newest if row[at])) for at, name in enumerate(_SUGGESTED)
    }
    is_limited = len(newest) == _OF_THE_NEWEST or any(
        len(values) > _MOST_OPTIONS for values in found.values()
    )
    return {
        "options": {name: sorted(values[:_MOST_OPTIONS]) for name, values in found.items()},
        "limits": {"entries": _OF_THE_NEWEST, "each": _MOST_OPTIONS} if is_limited else None,
    }


@console_view("GET")
def entry_page(request: HttpRequest, seq: int) -> HttpResponse:
    entry = visible(request).defer(None).filter(seq=seq).first()
    if entry is None:
        raise NotFound(f"There is no audit entry {seq}, or you may not see it.")
    body = body_of(entry)
    ((_, sentence),) = sentences.told([entry])
    changed = differences(body)
    told = [each for each in changed if each["kind"] != "added" or each["after"] not in _NOTHING]
    context = {
        "entry": entry,
        "body": body,
        "differences": told,
        "address": target_page(entry, sentences.names_of([entry])),
    }
    context["empty"] = len(changed) - len(told)
    context["behind"] = sentences.person_of(sentences.user_id(body))
    context |= {"sentence": sentence, "verdicts": _verdicts(body["evidence"])}
    context["evidence"] = body["evidence"] and json.dumps(body["evidence"], indent=2, ensure_ascii=False)
    trail = [("Audit", reverse("console:audit"))]
    return page(request, "audit/entry.html", context, title=f"Entry {seq}", crumbs=trail)


_NOTHING: tuple[Any, ...] = (None, "", [], {})  # empty fields of a new row, which the page omits
_FIGURES = ("estimate", "low", "high", "margin", "n_candidate", "n_baseline")


def _verdicts(evidence: Any) -> list[dict[str, Any]]:
    """Return the guardrail verdicts in an entry's evidence as table rows; empty if there are none."""
    found = evidence.get("verdicts") if isinstance(evidence, dict) else None
    return [
        {"name": verdict.get("name"), "result": verdict.get("result")}
        | {name: _number(verdict.get(name)) for name in _FIGURES}
        for verdict in found or []
        if isinstance(verdict, dict)
    ]


def _number(value: Any) -> float | None:
    """Return a number from the log, where decimals are text; None if it is not a number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def differences(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the entry's changes for display: a dotted path, the value before and the value after."""
    return [
        {
            "path": path.removesuffix(_PCM),
            "kind": "changed" if {"before", "after"} <= set(change) else _added_or_removed(change),
            **{side: _in_percent(path, change.get(side)) for side in ("before", "after")},
        }
        for change in body["diff"]
        for path in [change["path"].lstrip("/").replace("/", ".").replace("~1", "/").replace("~0", "~")]
    ]


_PCM = "_pcm"  # ends the name of a share in 1/100,000


def _in_percent(name: str, value: Any) -> Any:
    """Return a value with the shares in it as people write them: `{"share_pcm": 30000}` → `{"share": "30 %"}`."""
    if isinstance(value, dict):
        return {key.removesuffix(_PCM): _in_percent(key, each) for key, each in value.items()}
    if isinstance(value, list):
        return [_in_percent(name, each) for each in value]
    return share(value) if name.endswith(_PCM) and type(value) in (int, float) else value


def _added_or_removed(change: dict[str, Any]) -> str:
    return "added" if "after" in change else "removed"


def target_page(entry: Entry, known: Mapping[str, Mapping[str, str]]) -> str:
    """Return the URL of the entry's target, or "". A refused write may not have created its target: of kinds with
    registered names, only `known` targets exist."""
    found, kind = _PAGES.get(entry.target_kind), entry.target_kind
    exists = entry.outcome != "refused" or kind not in known or entry.target_id in known[kind]
    return found(entry.target_id) if found and exists else ""


@console_view("GET")
def export(request: HttpRequest, form: str) -> HttpResponse:
    """Export the filtered list, complete and oldest first."""
    if form not in exports.FORMATS:
        raise NotFound("The log can be exported as jsonl or csv.")
    filters = FilterForm(request.GET)
    entries = filters.narrow(visible(request)).defer(None)
    if filters.errors:  # an empty file would look like an empty log
        wrong = "; ".join(f"{name}: {' '.join(map(str, found))}" for name, found in filters.errors.items())
        raise InvalidInput(f"The filter is not valid. {wrong}")
    return cast("HttpResponse", exports.response(entries, form))


@console_view("GET", "POST")
def verify_page(request: HttpRequest) -> HttpResponse:
    """Show a button that verifies the whole log, and the findings."""
    must(request, Role.VIEWER, "")
    with_file = verification.keeps_file()
    found = verification.verify(with_file=with_file) if request.method == "POST" else None
    last = Checkpoint.objects.order_by("-seq").first()
    head = Head.objects.filter(pk=HEAD).first()
    context = {"found": found, "last": last, "head": head, "with_file": with_file}
    trail = [("Audit", reverse("console:audit"))]
    return page(request, "audit/verify.html", context, title="Verify", crumbs=trail)


class SeqConverter(IntConverter):
    """The number of an entry. A forged row may have a negative one, and pages must be able to link to it."""

    regex = "-?[0-9]{1,19}"


register_converter(SeqConverter, "seq")
urlpatterns = [
    path("audit/export.<slug:form>", export, name="audit_export"),
    path("audit/verify/", verify_page, name="audit_verify"),
    path("audit/", entries, name="audit"),
    path("audit/<seq:seq>/", entry_page, name="entry"),
]
