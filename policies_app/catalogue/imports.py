"""Plan and apply the changes that a price list makes to the catalogue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any

from django.db import transaction

from controlplane.core.actors import Actor
from controlplane.core.bulk import chunks
from controlplane.core.errors import Conflict, InvalidInput, NotFound, PointsmanError, StaleVersion
from controlplane.web.display import money
from policies_app.catalogue.actions import IMPORTED, add_model, edit_model
from policies_app.catalogue.price_files import ListedModel, PriceList
from policies_app.catalogue.usage import used_in
from policies_app.models import Assignment, Model
from policies_app.snapshots.revisions import lock_environments

MOST_WRITTEN = 500  # models per import
# Models per transaction. It locks every environment and, from its first audit entry on, the log: other changes wait,
# pins and rollbacks included. 300 models took three seconds.
AT_ONCE = 25


@dataclass(frozen=True, slots=True)
class Change:
    """One model to add (`model` is None) or change. A non-empty `kept` is the reason why nothing is written."""

    name: str
    model: Model | None
    fields: dict[str, Any]  # what would be written
    before: dict[str, Any]
    used_in: list[str]  # `environment/workload` of the places that serve a policy with it
    kept: str = ""

    @property
    def lines(self) -> list[str]:
        """Return each field for display: `input price $0.15 → $0.10`, in dollars per million tokens."""
        return [
            f"{_words(name)} {_moved(name, self.before.get(name), value)}"
            if self.model
            else f"{_words(name)} {_written(name, value)}"
            for name, value in sorted(self.fields.items())
        ]


def _words(field: str) -> str:
    return field.removesuffix("_nusd_per_mtok").replace("_", " ") + (
        " price" if field.endswith("_per_mtok") else ""
    )


def _written(field: str, value: Any) -> str:
    if value is None:
        return "unknown"
    return money(value) if field.endswith("_nusd_per_mtok") else str(value)


def _moved(field: str, before: Any, after: Any) -> str:
    """Return both values. Prices that round to the same are in full: `$1.251 → $1.25`."""
    shown = [_written(field, value) for value in (before, after)]
    if shown[0] == shown[1] and field.endswith("_nusd_per_mtok"):
        shown = [f"${Decimal(nusd) / 10**9:,f}" for nusd in (before, after)]
    return " → ".join(shown)


def plan(listed: PriceList, *, add: Sequence[str] = (), overwrite: bool = False) -> list[Change]:
    """Return the changes, by name. `add` lists patterns of names to add; other unknown models are skipped."""
    known = {model.name: model for model in Model.objects.all()}
    used = used_in(Assignment.objects.all())
    return sorted(_changes(listed, known, used, add, overwrite), key=lambda change: change.name)


def apply(source: str, changes: Sequence[Change], *, actor: Actor, reason: str) -> int:
    """Write the changes, a few in each transaction, and return how many.

    If a model has changed since the changes were planned, nothing is written. If one cannot be written all the same,
    those before it stay: prices do not depend on each other. Then the error's `written` says how many.
    """
    written = [change for change in changes if not change.kept]
    if len(written) > MOST_WRITTEN:
        raise InvalidInput(
            f"{len(written):,} models would be written, but one import may write at most {MOST_WRITTEN}: "
            "add fewer models."
        )
    _refuse_changed(written)
    done = 0
    for some in chunks(written, AT_ONCE):
        try:
            _apply_together(some, source[:200], actor, reason)
        except PointsmanError as error:
            if not done:
                raise
            raise Conflict(
                f"{done} of {len(written)} models were written, then: {error.detail} Read the price list again to "
                "write the others.",
                written=done,
            ) from error
        done += len(some)
    return done


def _refuse_changed(written: Sequence[Change]) -> None:
    now = dict(Model.objects.values_list("name", "version"))
    for change in written:
        if now.get(change.name) != (change.model.version if change.model else None):
            raise StaleVersion(f"{change.name} has changed since the price list was read: read it again.")


def _apply_together(changes: Sequence[Change], source: str, actor: Actor, reason: str) -> None:
    with transaction.atomic():
        lock_environments()  # before the first model's row, as in every edit of a model
        for change in changes:
            fields = change.fields | {"price_source": source}
            if change.model is None:
                add_model(change.name, actor=actor, reason=reason, **fields)
            else:
                edit_model(change.model, expected=change.model.version, actor=actor, reason=reason, **fields)


def _changes(
    listed: PriceList,
    known: dict[str, Model],
    used: dict[str, list[str]],
    add: Sequence[str],
    overwrite: bool,
) -> Iterator[Change]:
    for entry in listed.models:
        model = known.get(entry.name)
        if model is not None:
            before = {name: getattr(model, name) for name in entry.fields}
            fields = {name: value for name, value in entry.fields.items() if before[name] != value}
            if fields:
                edited = not overwrite and not model.price_source.startswith(IMPORTED)
                kept = "a person set it" if edited else ""
                yield Change(entry.name, model, fields, before, used.get(entry.name, []), kept)
        elif any(fnmatchcase(entry.name, pattern) for pattern in add):
            yield Change(entry.name, None, dict(entry.fields), {}, [], _lacking(entry))


def _lacking(entry: ListedModel) -> str:
    """Return what the list lacks for adding a model, or ""."""
    return "" if "context_window" in entry.fields else "the list gives no context_window"


# --- storing a plan between showing and writing it --------------------------------------------------------


def as_row(change: Change) -> list[Any]:
    """Return [name, the model's version (None: new), fields] as JSON values."""
    fields = {
        name: value.isoformat() if isinstance(value, date) else value for name, value in change.fields.items()
    }
    return [change.name, change.model.version if change.model else None, fields]


def from_row(row: list[Any]) -> Change:
    """Restore a change, with the model's version at the time it was shown. Raises `NotFound` if the model is gone."""
    name, version, fields = row
    if "retires_on" in fields:
        fields["retires_on"] = date.fromisoformat(fields["retires_on"])
    model = None
    if version is not None:
        model = Model.objects.filter(name=name).first()
        if model is None:
            raise NotFound(f"{name} is no longer in the catalogue: read the price list again.")
        model.version = version
    return Change(name, model, fields, {}, [])
