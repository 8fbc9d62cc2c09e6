"""Checks that the ready-made texts in an assignment's row match its columns."""

import json
from collections.abc import Mapping
from typing import Any

from policies_app.models import PRICES, Assignment, Model
from policies_app.snapshots import build

Prices = Mapping[str, Mapping[str, int | None]]


def prices_by_model() -> Prices:
    """Return the catalogue's prices by model, in the format of an assignment's row."""
    return {
        model.name: {price: getattr(model, f"{price}_nusd_per_mtok") for price in PRICES}
        for model in Model.objects.all()
    }


def differences(row: Assignment, prices: Prices) -> list[str]:
    """Return where the texts differ: `candidate`, `rollout.share_pcm`, `price of openai/gpt-4o-mini`."""
    stored, kept = _parsed(row.fragment), _parsed(row.prices)
    if stored is None or kept is None:
        return ["it is not valid JSON"]
    try:
        built = json.loads(build.fragment(row))
    except (ValueError, TypeError):
        return ["its version, which is not valid JSON"]
    wrong = _differing(stored, built)
    wrong += [f"price of {name}" for name, price in kept.items() if _is_other_price(price, prices.get(name))]
    return wrong


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _differing(stored: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Compare two fragments. A text from an earlier release may lack newer fields of a rollout."""
    wrong = sorted(
        name
        for name in stored.keys() | expected.keys()
        if name != "rollout"
        and (name not in stored or name not in expected or stored[name] != expected[name])
    )
    ours, theirs = stored.get("rollout"), expected["rollout"]
    if isinstance(ours, dict) and isinstance(theirs, dict):
        wrong += sorted(
            f"rollout.{name}" for name in ours if name not in theirs or ours[name] != theirs[name]
        )
    elif ours != theirs:
        wrong.append("rollout")
    return wrong


def _is_other_price(stored: Any, known: Mapping[str, int | None] | None) -> bool:
    if known is None or not isinstance(stored, dict):
        return True
    return any(name not in known or known[name] != value for name, value in stored.items())
