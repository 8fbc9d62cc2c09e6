"""Pages of the model catalogue: the models, and a price import in two steps (show, then write)."""

from collections.abc import Sequence
from datetime import date
from typing import Any

from django import forms
from django.core import signing
from django.core.files.uploadedfile import UploadedFile
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core import clock
from controlplane.core.errors import InvalidInput
from controlplane.web.pages import attempt, console_view, done, may, must, page, paginated, person, status_of
from pointsman.plurals import counted
from policies_app.catalogue import imports, price_files
from policies_app.catalogue.imports import Change
from policies_app.catalogue.usage import model_notices, used_in
from policies_app.console.lookups import environments_of
from policies_app.forms import ReasonForm
from policies_app.models import Assignment, Model

_SALT = "pointsman.catalogue.import"
_SHOWN_FOR_S = 3600  # a plan shown longer ago must be made again
_MOST_BYTES = 4 * 1024 * 1024  # upload limit, equal to the server's limit on request bodies
_SHOWN = 200  # the most rows shown of models that are kept


class PriceFileForm(forms.Form):
    """A price list, and the names of models to add from it."""

    file = forms.FileField(
        required=False,
        label="Price list",
        help_text="LiteLLM's model_prices_and_context_window.json, or a CSV with the columns name, "
        "input_usd_per_mtok, output_usd_per_mtok, …; at most 4 MiB. For larger files use manage.py catalogue import.",
    )
    installed = forms.BooleanField(
        required=False, label="The price map of the litellm package installed here"
    )
    add = forms.CharField(
        required=False,
        max_length=400,
        label="Models to add",
        widget=forms.TextInput(attrs={"placeholder": "openai/gpt-5*, anthropic/claude-*"}),
        help_text="Names or patterns, separated by commas. Models in the catalogue are always compared.",
    )
    overwrite = forms.BooleanField(
        required=False,
        label="Also change prices set by a person",
        help_text="Otherwise they are kept, and listed.",
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if bool(data.get("file")) == bool(data.get("installed")):
            raise forms.ValidationError("Choose either a file or the installed price map.")
        data["listed"] = self._read(data)
        return data

    def _read(self, data: dict[str, Any]) -> price_files.PriceList:
        try:
            listed = _uploaded(data["file"]) if data.get("file") else _installed()
        except ValueError as error:
            raise forms.ValidationError(str(error)) from None
        if listed.problems:
            raise forms.ValidationError([*listed.told(), "Nothing was imported."])
        return listed


class ImportForm(ReasonForm):
    """The plan that was shown, signed, so that exactly this is written."""

    shown = forms.CharField(widget=forms.HiddenInput)


@console_view("GET")
def models(request: HttpRequest) -> HttpResponse:
    must(request, None, permissions.ANYWHERE)
    rows = paginated(request, Model.objects.all())
    used = used_in(Assignment.objects.filter(environment__in=environments_of(request)))
    listed = list(rows)
    notices: dict[str, list[Any]] = {}
    for notice in model_notices([{"models": {m.name: {"model": m.name} for m in listed}}], _today()):
        notices.setdefault(notice.model, []).append(notice)
    context = {
        "rows": rows,
        "table": [(model, used.get(model.name, []), notices.get(model.name, [])) for model in listed],
        "may_import": may(request, Role.ADMIN, ""),
    }
    return page(request, "policies/models.html", context, title="Models")


@console_view("GET", "POST")
def import_models(request: HttpRequest) -> HttpResponse:
    """GET shows the upload form; POST shows what the file would change."""
    _must_be_admin(request)
    form = PriceFileForm(request.POST, request.FILES) if request.method == "POST" else PriceFileForm()
    context: dict[str, Any] = {"form": form, "installed": price_files.installed_price_map()}
    if request.method == "POST" and form.is_valid():
        data = form.cleaned_data
        add = [pattern.strip() for pattern in data["add"].split(",") if pattern.strip()]
        changes = imports.plan(data["listed"], add=add, overwrite=data["overwrite"])
        context |= _shown(data["listed"].source, changes)
    return _import_page(request, context, status_of(form))


@console_view("POST")
def write_models(request: HttpRequest) -> HttpResponse:
    """Write the plan that was shown."""
    _must_be_admin(request)
    form = ImportForm(request.POST)
    written = attempt(request, form, _write)
    if written is not None:
        return done(request, f"Imported: {counted(written, 'model')}.", to=reverse("console:models"))
    return _import_page(request, {"form": PriceFileForm(), "applying": form}, status_of(form))


def _must_be_admin(request: HttpRequest) -> None:
    must(request, None, permissions.ANYWHERE)
    permissions.require_role(person(request), Role.ADMIN, "")


def _write(*, shown: str, actor: Any, reason: str) -> int:
    try:
        source, rows = signing.loads(shown, salt=_SALT, max_age=_SHOWN_FOR_S)
    except signing.SignatureExpired:
        raise InvalidInput("This preview is more than an hour old: read the price list again.") from None
    except signing.BadSignature:
        raise InvalidInput("This differs from the preview: read the price list again.") from None
    return imports.apply(source, [imports.from_row(row) for row in rows], actor=actor, reason=reason)


def _shown(source: str, changes: Sequence[Change]) -> dict[str, Any]:
    written = [change for change in changes if not change.kept]
    kept = [change for change in changes if change.kept]
    rows = [imports.as_row(change) for change in written[: imports.MOST_WRITTEN]]
    return {
        "source": source,
        "written": written[: imports.MOST_WRITTEN],
        "too_many": len(written) if len(written) > imports.MOST_WRITTEN else 0,
        "most": imports.MOST_WRITTEN,
        "kept": kept[:_SHOWN],
        "more_kept": max(0, len(kept) - _SHOWN),
        "applying": ImportForm(initial={"shown": signing.dumps([source, rows], salt=_SALT, compress=True)}),
    }


def _import_page(request: HttpRequest, context: dict[str, Any], status: int) -> HttpResponse:
    crumbs = [("Models", reverse("console:models"))]
    return page(request, "policies/import_models.html", context, title="Import", crumbs=crumbs, status=status)


def _uploaded(file: "UploadedFile[Any]") -> price_files.PriceList:
    if (file.size or 0) > _MOST_BYTES:
        raise ValueError(f"{file.name} has {file.size:,} bytes; the limit for an upload is {_MOST_BYTES:,}.")
    return price_files.read_bytes(file.name or "upload", file.read())


def _installed() -> price_files.PriceList:
    found = price_files.installed_price_map()
    if found is None:
        raise ValueError("The litellm package is not installed: upload a file.")
    return price_files.read(found)


def _today() -> date:
    return clock.now().date()
