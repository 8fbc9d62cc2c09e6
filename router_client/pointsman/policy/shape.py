"""Check a document against the schema table, with messages that say what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isfinite
from typing import Any, Protocol

from pointsman.policy.canonical import reads_as_integer
from pointsman.policy.document import KEY, MAX_DEPTH, MAX_INTEGER
from pointsman.problems import Near, Severity, join

__all__ = ["Reporter", "check_json", "check_shape"]


class Reporter(Protocol):
    """Receives a finding: its position (`offset` within a string, or KEY), its kind, and what to do about it.

    near   a misspelt word and the known ones, for a suggestion in the message
    """

    def __call__(
        self,
        path: str,
        code: str,
        message: str,
        offset: int = 0,
        severity: Severity = "error",
        near: Near | None = None,
    ) -> None: ...


_UNSAFE = re.compile("[\0\ud800-\udfff]")
_KINDS: Mapping[str, str] = {
    "object": "an object", "array": "a list", "string": "a string", "integer": "an integer",
    "number": "a number", "boolean": "a boolean",
}  # fmt: skip


def check_json(data: Any, report: Reporter) -> bool:
    """Return whether every database and parser can handle the JSON: depth, NUL, surrogates, NaN, huge integers."""
    sound = True

    def bad(path: str, code: str, message: str) -> None:
        nonlocal sound
        sound = False
        report(path, code, message, 0)

    stack: list[tuple[Any, str, int]] = [(data, "", 0)]
    while stack:
        value, path, depth = stack.pop()
        if isinstance(value, Mapping | list):
            if depth >= MAX_DEPTH:
                bad(path, "too_deep", f"nested more than {MAX_DEPTH} levels deep")
                continue
            for step, member in value.items() if isinstance(value, Mapping) else enumerate(value):
                if not isinstance(step, int | str) or (
                    isinstance(value, Mapping) and not isinstance(step, str)
                ):
                    bad(path, "wrong_type", "the names of members must be strings" + _yaml_1_1(step))
                elif isinstance(step, str) and _UNSAFE.search(step):
                    bad(path, "bad_character", "NUL and unpaired surrogates are not allowed")
                else:
                    stack.append((member, join(path, step), depth + 1))
        elif isinstance(value, str):
            if _UNSAFE.search(value):
                bad(path, "bad_character", "NUL and unpaired surrogates are not allowed")
        elif isinstance(value, float) and not isfinite(value):
            bad(path, "bad_number", "NaN and infinity are not valid JSON")
        elif isinstance(value, int | float):
            if abs(value) > MAX_INTEGER and (isinstance(value, int) or reads_as_integer(value)):
                bad(path, "bad_number", "integers beyond 2^53 are not exact in every JSON parser")
        elif value is not None:
            bad(path, "wrong_type", f"{type(value).__name__} is not a JSON type")
    return sound


_TRUE, _FALSE = (True, "true", "True"), (False, "false", "False")


def _yaml_1_1(name: object) -> str:
    """Return an explanation if a name is a boolean: `yaml.safe_load` of a policy's `on:`, possibly via JSON."""
    if not isinstance(name, bool | str) or name not in (*_TRUE, *_FALSE):
        return ""
    return f": {_explained(name in _TRUE, 'name')}"


def _yaml_1_1_value(value: object) -> str:
    """Return an explanation if a boolean is where a text belongs: `yaml.safe_load` of `id: no`."""
    return f"; {_explained(value, 'text')}" if isinstance(value, bool) else ""


def _explained(is_true: bool, what: str) -> str:
    words = "on, yes or true into true" if is_true else "off, no or false into false"
    return (
        f"yaml.safe_load follows YAML 1.1, which turns {'the name ' if what == 'name' else ''}{words}. "
        f"Pass the YAML text instead (pointsman reads YAML 1.2), or write the {what} in quotes"
    )


def check_shape(value: Any, schema: Mapping[str, Any], report: Reporter, path: str = "") -> None:
    """Report all differences between the value and the schema."""
    kinds = schema.get("type", ())
    allowed = [kinds] if isinstance(kinds, str) else kinds
    if allowed and not any(_is(value, kind) for kind in allowed):
        report(
            path,
            "wrong_type",
            f"expected {' or '.join(_KINDS[kind] for kind in allowed)}, found {_found(value)}"
            + (_yaml_1_1_value(value) if "string" in allowed else ""),
            0,
        )
        return
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if choices is not None and (value not in choices or isinstance(value, bool)):
        expected = ", ".join(str(choice) for choice in choices)
        report(
            path,
            "not_allowed",
            f"expected {'one of ' * (len(choices) > 1)}{expected}",
            near=(value, [choice for choice in choices if isinstance(choice, str)]),
        )
    elif isinstance(value, Mapping):
        _members(value, schema, report, path)
    elif isinstance(value, list):
        _items(value, schema, report, path)
    elif isinstance(value, str):
        _string(value, schema, report, path)
    elif isinstance(value, int | float):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and high is not None and not low <= value <= high:
            report(path, "out_of_range", f"expected a value from {low:,} to {high:,}, found {value:,}", 0)


# By path: the rule of a required member, for which a first try would otherwise be wrong once more.
_RULES = {
    "fallback": (
        ": the models to try, in order, if the chosen one cannot be reached. At least one of them must not be the "
        'default: for "default: small" write "fallback: [large]"'
    )
}


def _members(value: Mapping[str, Any], schema: Mapping[str, Any], report: Reporter, path: str) -> None:
    properties, other = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            report(path, "missing_key", f'"{name}" is required{_RULES.get(join(path, name), "")}', 0)
    if len(value) < schema.get("minProperties", 0):
        report(path, "too_few", f"at least {schema['minProperties']} is required", 0)
    if len(value) > schema.get("maxProperties", len(value)):
        report(path, "too_many", f"at most {schema['maxProperties']} are allowed, found {len(value)}", 0)
        return
    pattern = schema.get("propertyNames", {}).get("pattern")
    for name, member in value.items():
        inner = join(path, name)
        if pattern is not None and not re.fullmatch(pattern.strip("^$"), name):
            report(inner, "bad_name", f"a name must match {pattern}", KEY)
        if name in properties:
            check_shape(member, properties[name], report, inner)
        elif other is False:
            hint = _yaml_1_1(name) if "on" in properties else ""
            report(inner, "unknown_key", f'unknown key "{name}"{hint}', KEY, near=(name, properties))
        elif isinstance(other, Mapping):
            check_shape(member, other, report, inner)


def _items(value: list[Any], schema: Mapping[str, Any], report: Reporter, path: str) -> None:
    if len(value) < schema.get("minItems", 0):
        report(path, "too_few", f"at least {schema['minItems']} is required", 0)
    if len(value) > schema.get("maxItems", len(value)):
        report(path, "too_many", f"at most {schema['maxItems']} are allowed, found {len(value)}", 0)
        return
    for place, item in enumerate(value):
        if "items" in schema:
            check_shape(item, schema["items"], report, join(path, place))
        if schema.get("uniqueItems") and isinstance(item, str) and item in value[:place]:
            report(join(path, place), "duplicate_item", f'"{item}" is listed more than once', 0)


def _string(value: str, schema: Mapping[str, Any], report: Reporter, path: str) -> None:
    if len(value) < schema.get("minLength", 0):
        report(path, "too_short", "must not be empty", 0)
    elif len(value) > schema.get("maxLength", len(value)):
        report(
            path,
            "too_long",
            f"at most {schema['maxLength']:,} characters are allowed, found {len(value):,}",
            0,
        )
    elif "pattern" in schema and not re.fullmatch(schema["pattern"].strip("^$"), value):
        report(path, "bad_name", f"a name must match {schema['pattern']}", 0)


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    match kind:
        case "object":
            return isinstance(value, Mapping)
        case "array":
            return isinstance(value, list)
        case "string":
            return isinstance(value, str)
        case "integer":  # 1.0 is the integer 1, as in JSON Schema: canonical JSON writes both alike.
            return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        case _:
            return kind == "number" and isinstance(value, int | float)


def _found(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ("boolean", "string", "integer", "number", "array", "object")
    kind = next((kind for kind in kinds if _is(value, kind)), None)
    return _KINDS[kind] if kind else type(value).__name__
