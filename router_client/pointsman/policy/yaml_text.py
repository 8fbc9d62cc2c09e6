"""Parse YAML into data with positions: the subset of YAML 1.2 that corresponds to JSON.

Refused are anchors and aliases (a small text can represent a huge document), tags (they construct objects),
duplicate names, and several documents. Plain words follow YAML 1.2's core schema; in YAML 1.1 the policy's `on:`
would be `true:`.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import Any

from pointsman.errors import ConfigurationError
from pointsman.policy.document import MAX_DEPTH, MAX_INTEGER, Source
from pointsman.policy.json_text import TextError
from pointsman.problems import join

__all__ = ["needs_quotes", "read_yaml"]

_UNSAFE = re.compile("[\0\ud800-\udfff]")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9A-Fa-f]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_ODD = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_BREAKS = re.compile(r".*[\x85\u2028\u2029].*", re.DOTALL)
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


def needs_quotes(text: str) -> bool:
    """Return whether the text must be quoted to be read as text, although it has no special characters.

    It looks like a number or a word of YAML 1.2, or has a character that only YAML 1.1 counts as a line break. PyYAML
    writes such texts as YAML 1.1 without quotes or with a real line break.
    """
    patterns = (_INT, _FLOAT, _ODD, _BREAKS)
    return text in _WORDS or any(pattern.fullmatch(text) for pattern in patterns)


def read_yaml(source: Source) -> Any:
    """Return the data. Fills the source's positions and problems; raises `TextError` for a syntax error."""
    try:
        import yaml  # imported here because it is optional and slow to import
    except ImportError:
        raise ConfigurationError(
            'reading YAML requires PyYAML: run pip install "pointsman[yaml]", or write the policy as JSON'
        ) from None
    builder = _Builder(source)
    try:
        for event in yaml.parse(source.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = min(mark.index, len(source.text)) if mark else 0
        raise TextError(at, "syntax", " ".join(filter(None, (error.context, error.problem)))) from None
    except (yaml.YAMLError, ValueError) as error:
        raise TextError(0, "syntax", f"invalid YAML: {error}") from None
    return builder.root


class _Builder:
    """Builds the value from the parser's events. `stack` holds the open containers with their paths."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.root: Any = None
        self.documents = 0
        self.stack: list[tuple[dict[str, Any] | list[Any], str]] = []
        self.name: tuple[str, int] | None = None

    def take(self, event: Any) -> None:
        kind = type(event).__name__
        at = event.start_mark.index
        if kind == "AliasEvent" or getattr(event, "anchor", None) is not None:
            raise TextError(at, "yaml_anchor", "anchors and aliases are not allowed; write out the value")
        if kind == "DocumentStartEvent":
            self.documents += 1
            if self.documents > 1:
                raise TextError(at, "yaml_documents", "only one YAML document is allowed")
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()
            self.name = None
        elif kind in ("MappingStartEvent", "SequenceStartEvent", "ScalarEvent"):
            if event.tag is not None:
                raise TextError(at, "yaml_tag", "tags are not allowed; write plain values")
            self.node(event, kind, at)

    def node(self, event: Any, kind: str, at: int) -> None:
        if self.naming():
            if kind != "ScalarEvent":
                raise TextError(at, "syntax", "the name of a member must be a string")
            self.name = (self.clean(event.value, at, self.stack[-1][1]), at)
            return
        path = self.path()
        if kind == "ScalarEvent":
            self.put(self.scalar(event, at, path), at, path)
            return
        if len(self.stack) >= MAX_DEPTH:
            raise TextError(at, "too_deep", f"nested more than {MAX_DEPTH} levels deep")
        container: dict[str, Any] | list[Any] = {} if kind == "MappingStartEvent" else []
        self.put(container, at, path)
        self.stack.append((container, path))
        self.name = None

    def naming(self) -> bool:
        """Whether the next event is a member's name."""
        return bool(self.stack) and isinstance(self.stack[-1][0], dict) and self.name is None

    def path(self) -> str:
        if not self.stack:
            return ""
        container, path = self.stack[-1]
        return join(path, self.name[0] if self.name is not None else len(container))

    def put(self, value: Any, at: int, path: str) -> None:
        self.source.values[path] = at
        if not self.stack:
            self.root = value
            return
        container = self.stack[-1][0]
        if isinstance(container, list):
            container.append(value)
        elif self.name is not None:
            name, where = self.name
            self.source.names[path] = where
            if name in container:
                self.source.problem(where, "duplicate_key", f'duplicate key "{name}"', path)
            container[name] = value
            self.name = None

    def clean(self, text: str, at: int, path: str) -> str:
        if _UNSAFE.search(text):
            self.source.problem(at, "bad_character", "NUL and unpaired surrogates are not allowed", path)
        return text

    def scalar(self, event: Any, at: int, path: str) -> Any:
        text = self.clean(event.value, at, path)
        if event.style is not None and event.style != "":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _ODD.fullmatch(text):
            return self.refuse(at, f"{text} is not valid JSON", path)
        if _INT.fullmatch(text):
            value = _integer(text)
            return (
                value
                if value is not None
                else self.refuse(at, "integers beyond 2^53 are not exact in every JSON parser", path)
            )
        if _FLOAT.fullmatch(text):
            number = float(text)
            return (
                number if isfinite(number) else self.refuse(at, "this number is too large for a double", path)
            )
        return text

    def refuse(self, at: int, message: str, path: str) -> int:
        self.source.problem(at, "bad_number", message, path)
        return 0


def _integer(text: str) -> int | None:
    """Return the integer, or None if it is too large.

    Checks the length first, because Python refuses to convert thousands of digits.
    """
    if len(text) > 40:
        return None
    value = int(text, {"0x": 16, "0o": 8}.get(text[:2], 10))
    return value if abs(value) <= MAX_INTEGER else None
