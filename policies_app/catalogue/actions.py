"""Writes to the model catalogue. A changed price is added to the history and reaches routers in a new revision."""

from collections.abc import Mapping
from typing import Any

from controlplane.core import clock
from controlplane.core.actors import Actor
from controlplane.core.errors import InvalidInput
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import PRICES, Model, ModelPrice
from policies_app.snapshots.revisions import lock_environments, republish_prices

IMPORTED = ("LiteLLM price map ", "CSV ")  # how `price_source` begins if no person has edited the prices
_PRICE_FIELDS = frozenset(f"{price}_nusd_per_mtok" for price in PRICES)


def add_model(name: str, *, actor: Actor, reason: str = "", **fields: Any) -> Model:
    _refuse_bad_quality(fields)
    return create_row(
        Model(name=name, **fields),
        "model.add",
        actor=actor,
        reason=reason,
        then=lambda model: _note_prices(model, actor),
    )


def edit_model(
    model: Model, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Model:
    _refuse_bad_quality(changes)

    def publish(fresh: Model, changed: Mapping[str, Any]) -> None:
        if _PRICE_FIELDS & changed.keys():
            _note_prices(fresh, actor)
            republish_prices(fresh)

    # `model` may hold the new values already (a form's instance), so compare with the stored ones.
    stored = Model.objects.values(*_PRICE_FIELDS, "price_source").get(pk=model.pk)
    priced = any(changes.get(name, price) != price for name, price in stored.items() if name in _PRICE_FIELDS)
    if priced and stored["price_source"].startswith(IMPORTED):
        changes.setdefault("price_source", "")  # set by a person, so that an import keeps it
    return edit_row(
        model,
        "model.edit",
        changes,
        expected=expected,
        actor=actor,
        reason=reason,
        then=publish,
        first=lock_environments,
    )


def _refuse_bad_quality(fields: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` unless the recorded quality is a share (or unknown): 85 for 85 % would beat all others."""
    quality = fields.get("quality")
    if quality is not None and not 0 <= quality <= 1:
        raise InvalidInput(
            "quality: A share from 0 to 1.", [{"path": "quality", "message": "A share from 0 to 1."}]
        )


def _note_prices(model: Model, actor: Actor) -> None:
    ModelPrice.objects.create(
        model=model,
        since=clock.now(),
        prices={price: getattr(model, f"{price}_nusd_per_mtok") for price in PRICES},
        source=model.price_source,
        actor_label=actor.label,
    )
