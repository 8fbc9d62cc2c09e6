"""Read price lists: LiteLLM's price map (JSON) and CSV. Prices become whole nano-US-dollars per million tokens.

LiteLLM's map has US dollars per token (`input_cost_per_token`, `cache_read_input_token_cost`, …), the CSV US dollars
per million tokens. Both are parsed as decimals: 1.5e-07 is exactly 150,000,000.
"""

import csv
import importlib.util
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError

from controlplane.core.names import validate_name
from policies_app.models import PRICES

MAX_BYTES = 64 * 1024 * 1024
PROBLEMS_SHOWN = 20
_MOST = 2**63 - 1
_NUSD_PER_MTOK = {"token": Decimal(10) ** 15, "mtok": Decimal(10) ** 9}
# LiteLLM's field for each of our prices.
_LITELLM = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "batch_input": "input_cost_per_token_batches",
    "batch_output": "output_cost_per_token_batches",
}
_NOT_A_MODEL = "sample_spec"  # the map's description of its own fields
_TEXT_MODES = {"chat", "completion", "responses"}


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model of a price list. `fields` omits what the list does not give."""

    name: str
    fields: Mapping[str, Any]  # as accepted by `catalogue.actions`


@dataclass(slots=True)
class PriceList:
    """The parsed list. `problems` maps a kind (the column, or `name`) to errors with their place in the file."""

    source: str
    models: list[ListedModel] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def told(self) -> list[str]:
        """Return the problems as sentences: the first ones of each kind, and the number of the rest."""
        lines: list[str] = []
        for kind, found in self.problems.items():
            lines += found[:PROBLEMS_SHOWN]
            if (more := len(found) - PROBLEMS_SHOWN) > 0:
                lines.append(f"and {more:,} more problems of {kind}")
        return lines


def read(path: Path) -> PriceList:
    """Read a price list. Raises `ValueError` with a sentence if the file is not a price list."""
    try:
        # Do not check the file size: a pipe or a device has none.
        with path.open("rb") as file:
            return read_bytes(path.name, file.read(MAX_BYTES + 1))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from None


def read_bytes(name: str, content: bytes) -> PriceList:
    """Parse a file's content. `content` may be cut one byte after `MAX_BYTES`."""
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} is too large for a price list: more than {MAX_BYTES:,} bytes.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8 text.") from None
    if name.lower().endswith(".csv"):
        return _read_csv(name, text)
    return _read_litellm(name, text)


def installed_price_map() -> Path | None:
    """Return the price map of the installed LiteLLM package, if there is one."""
    try:
        found = importlib.util.find_spec("litellm")
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "model_prices_and_context_window_backup.json"
        if path.is_file():
            return path
    return None


def nusd_per_mtok(value: Any, unit: str) -> int:
    """Convert US dollars per `unit` (`token` or `mtok`) to nano-US-dollars per million tokens. Raises `ValueError`."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise ValueError(f"{value!r:.60} is not an amount of money")
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(f"{value!r:.60} is not an amount of money") from None
    if not amount.is_finite() or amount < 0 or amount > 10**9:
        raise ValueError(f"{value!r:.60} is not a valid price")
    whole = int((amount * _NUSD_PER_MTOK[unit]).to_integral_value(ROUND_HALF_EVEN))
    if whole > _MOST:
        raise ValueError(f"{value!r:.60} is not a valid price")
    return whole


# --- LiteLLM's price map ------------------------------------------------------------------------------


def _read_litellm(name: str, text: str) -> PriceList:
    try:
        document = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{name} is not a price map: it must be a JSON object of models.")
    found = PriceList(f"LiteLLM price map {name}")
    for key, entry in document.items():
        if not isinstance(entry, dict):
            found.problems.setdefault("models", []).append(f'model "{key}": it is not a JSON object')
        elif key != _NOT_A_MODEL and _is_text_model(entry):
            full = _litellm_name(key, entry)
            # The map lists some models twice, with and without the provider. Use the entry with the full name.
            if full == key or full not in document:
                _add(found, full, f'model "{key}"', _litellm_fields(entry))
    return found


def _is_text_model(entry: Mapping[str, Any]) -> bool:
    mode = entry.get("mode")
    return mode is None or (isinstance(mode, str) and mode in _TEXT_MODES)


def _litellm_name(key: str, entry: Mapping[str, Any]) -> str:
    """Return `openai/gpt-4o-mini` for `gpt-4o-mini` of provider `openai`. A key with a slash already has its
    provider."""
    provider = entry.get("litellm_provider")
    return key if "/" in key or not isinstance(provider, str) or not provider else f"{provider}/{key}"


def _litellm_fields(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield (our field, the list's field, its value) for the fields we read."""
    for price, theirs in _LITELLM.items():
        yield f"{price}_nusd_per_mtok", theirs, _priced(entry.get(theirs), "token")
    window = "max_input_tokens" if entry.get("max_input_tokens") is not None else "max_tokens"
    yield "context_window", window, _tokens(entry.get(window) or None)  # the map uses 0 for "unknown"
    yield "retires_on", "deprecation_date", _day(entry.get("deprecation_date"))


# --- CSV ------------------------------------------------------------------------------------------------


def _read_csv(name: str, text: str) -> PriceList:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    known = {"name", "context_window", "retires_on", *(f"{price}_usd_per_mtok" for price in PRICES)}
    found = PriceList(f"CSV {name}")
    try:
        _check_columns(name, rows.fieldnames or (), known)
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row:
                found.problems.setdefault("columns", []).append(
                    f"{where}: more fields than the first line names"
                )
            else:
                _add(found, (row["name"] or "").strip(), where, _csv_fields(row))
    except csv.Error as error:
        raise ValueError(f"{name} is not a valid CSV: line {rows.reader.line_num}: {error}.") from None
    return found


def _check_columns(name: str, columns: Iterable[str], known: set[str]) -> None:
    named = list(columns)
    allowed = ", ".join(sorted(known))
    if "name" not in named:
        raise ValueError(f"{name} has no column `name`; its columns may be {allowed}.")
    if unknown := sorted(set(named) - known):
        raise ValueError(f"{name} has the unknown column {unknown[0]!r}; its columns may be {allowed}.")
    if len(set(named)) < len(named):
        raise ValueError(f"{name} names a column twice: {', '.join(named)}.")


def _csv_fields(row: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for price in PRICES:
        column = f"{price}_usd_per_mtok"
        yield f"{price}_nusd_per_mtok", column, _priced((row.get(column) or "").strip() or None, "mtok")
    yield "context_window", "context_window", _tokens((row.get("context_window") or "").strip() or None)
    yield "retires_on", "retires_on", _day((row.get("retires_on") or "").strip() or None)


# --- both -----------------------------------------------------------------------------------------------


def _add(found: PriceList, name: str, where: str, fields: Iterator[tuple[str, str, Any]]) -> None:
    """Add a model, or record its problems with their place in the file."""
    wrong: list[tuple[str, str]] = []
    try:
        validate_name(name)
        if len(name) > 120:
            wrong.append(("name", f"{where}: the name has more than 120 characters"))
    except ValidationError as error:
        wrong.append(("name", f"{where}: name {name[:150]!r}: {error.message}"))
    values = {}
    for ours, theirs, value in fields:
        if isinstance(value, ValueError):
            wrong.append((theirs, f"{where}: {theirs}: {value}"))
        elif value is not None:
            values[ours] = value
    if name in found.names:
        wrong.append(("name", f"{where}: {name[:150]} is listed twice"))
    found.names.add(name)
    for kind, sentence in wrong:
        found.problems.setdefault(kind, []).append(sentence)
    if not wrong:
        found.models.append(ListedModel(name, values))


def _priced(value: Any, unit: str) -> int | ValueError | None:
    try:
        return None if value is None else nusd_per_mtok(value, unit)
    except ValueError as error:
        return error


def _tokens(value: Any) -> int | ValueError | None:
    if value is None:
        return None
    digits = (
        value if isinstance(value, str) else str(value) if type(value) is int and abs(value) < 2**40 else ""
    )
    if not (digits.isascii() and digits.isdigit() and len(digits) < 11 and 0 < int(digits) < 2**31):
        return ValueError(f"{value!r:.60} is not a number of tokens")
    return int(digits)


def _day(value: Any) -> date | ValueError | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        return ValueError(f"{value!r:.60} is not a date such as 2026-11-30")
