"""The models that policies use: notices about them, and the refusal of disabled ones. Reads only."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import msgspec
from django.db.models import QuerySet

from controlplane.core.errors import Conflict
from policies_app.models import Assignment, Model, PolicyVersion

RETIRES_SOON = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class ModelNotice:
    """A notice about a model that a policy uses. `tone` is `bad` or `warn`."""

    model: str
    sentence: str
    tone: str


def models_of(document: Mapping[str, Any]) -> set[str]:
    """Return the catalogue names of the models that a policy uses."""
    return {entry["model"] for entry in document["models"].values()}


def refuse_disabled_models(version: PolicyVersion, enabled: Collection[str] | None = None) -> None:
    """Raise `Conflict` if the version uses a model that was disabled after it was written. `enabled`: the names of the
    enabled models, if they were already read."""
    used = models_of(version.document)
    if enabled is None:
        enabled = Model.objects.filter(name__in=used, enabled=True).values_list("name", flat=True)
    if missing := sorted(used.difference(enabled)):
        verb, them = ("are", "them") if len(missing) > 1 else ("is", "it")
        raise Conflict(
            f"Version {version.number} uses {', '.join(missing)}, which {verb} disabled in the catalogue: "
            f"enable {them}, or write a version without {them}."
        )


def used_in(served: QuerySet[Assignment]) -> dict[str, list[str]]:
    """Map each model to the places (`environment/workload`) whose served policies use it."""
    places: dict[str, list[str]] = defaultdict(list)
    columns = ("environment__name", "workload__name", "baseline__canonical", "candidate__canonical")
    rows = served.order_by("environment__name", "workload__name").values_list(*columns)
    for environment, workload, *documents in rows.iterator():
        used = (_MODELS.decode(document).models.values() for document in documents if document is not None)
        for name in {entry.model for entries in used for entry in entries}:
            places[name].append(f"{environment}/{workload}")
    return dict(places)


class _Entry(msgspec.Struct):
    model: str


class _Models(msgspec.Struct):
    """Decodes only a document's models, because one page reads a thousand documents."""

    models: dict[str, _Entry]


_MODELS = msgspec.json.Decoder(_Models)


def model_notices(documents: Iterable[Mapping[str, Any]], today: date) -> list[ModelNotice]:
    """Return notices about models in these policies that are unknown, disabled, unpriced, retired or about to
    retire. One query."""
    names = set().union(*(models_of(document) for document in documents))
    found = {model.name: model for model in Model.objects.filter(name__in=names)}
    return [notice for name in sorted(names) for notice in _notices(name, found.get(name), today)]


def _notices(name: str, model: Model | None, today: date) -> Iterable[ModelNotice]:
    if model is None:
        yield ModelNotice(name, f"{name} is not in the catalogue.", "bad")
        return
    if not model.enabled:
        yield ModelNotice(name, f"{name} is disabled in the catalogue.", "bad")
    lacking = [kind for kind in ("input", "output") if getattr(model, f"{kind}_nusd_per_mtok") is None]
    if lacking:
        text = f"{name} has no {' and no '.join(lacking)} price, so costs computed from tokens stay unknown."
        yield ModelNotice(name, text, "warn")
    if model.retires_on is not None:
        yield from _retirement(name, model.retires_on, today)


def _retirement(name: str, retires_on: date, today: date) -> Iterable[ModelNotice]:
    days = (retires_on - today).days
    if days < 0:
        yield ModelNotice(name, f"{name} was retired by its provider on {retires_on:%Y-%m-%d}.", "bad")
    elif days <= RETIRES_SOON.days:
        left = "today" if days == 0 else "tomorrow" if days == 1 else f"in {days} days"
        yield ModelNotice(name, f"{name} retires {left} ({retires_on:%Y-%m-%d}).", "warn")


def dollars_per_million() -> dict[str, tuple[float, float]]:
    """Return dollars per million tokens (input, output) of the models that have both prices."""
    prices = Model.objects.values_list("name", "input_nusd_per_mtok", "output_nusd_per_mtok")
    return {
        name: (tokens_in / 1e9, tokens_out / 1e9)
        for name, tokens_in, tokens_out in prices
        if tokens_in is not None and tokens_out is not None
    }
