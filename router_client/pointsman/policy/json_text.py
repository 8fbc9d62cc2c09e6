"""Parse JSON (RFC 8259) into data with positions. Unlike the standard library it refuses NaN and duplicate names."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder
from math import isinf
from typing import Any

from pointsman.policy.document import MAX_DEPTH, MAX_INTEGER, Source
from pointsman.problems import join

__all__ = ["TextError", "read_json"]

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"-?[A-Za-z]+")
_STRINGS = JSONDecoder()
_WORDS = {"true": True, "false": False, "null": None}
_UNSAFE = re.compile("[\0\ud800-\udfff]")


class TextError(Exception):
    """A syntax error after which the text cannot be parsed further."""

    def __init__(self, at: int, code: str, message: str) -> None:
        self.at, self.code = at, code
        super().__init__(message)


def read_json(source: Source) -> Any:
    """Return the data. Fills the source's positions and problems; raises `TextError` for a syntax error."""
    reader = _Reader(source)
    value = reader.value(reader.skip(0), "", 0)
    if reader.at != len(source.text):
        raise TextError(reader.at, "syntax", "unexpected text after the end of the document")
    return value


class _Reader:
    """A recursive parser, at most 32 levels deep. `at` is the next position after white space."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.at = 0

    def skip(self, at: int) -> int:
        match = _SPACE.match(self.text, at)
        self.at = match.end() if match else at
        return self.at

    def value(self, at: int, path: str, depth: int) -> Any:
        self.source.values[path] = at
        char = self.text[at : at + 1]
        if char in ("{", "[") and depth >= MAX_DEPTH:
            raise TextError(at, "too_deep", f"nested more than {MAX_DEPTH} levels deep")
        if char == "{":
            return self.members(at, path, depth)
        if char == "[":
            return self.items(at, path, depth)
        if char == '"':
            return self.string(at, path)
        return self.number(at, path) if char in "-0123456789" and char else self.word(at, path)

    def members(self, at: int, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self.skip(at + 1)
        while not self.take("}"):
            if found:
                self.expect(",", 'or "}" after a member')
            at = self.at
            if self.text[at : at + 1] != '"':
                raise TextError(at, "syntax", "expected a name in double quotes")
            name = self.string(at, path)
            inner = join(path, name)
            if name in found:
                self.source.problem(at, "duplicate_key", f'duplicate key "{name}"', inner)
            self.source.names[inner] = at
            self.expect(":", "after a name")
            found[name] = self.value(self.at, inner, depth + 1)
        return found

    def items(self, at: int, path: str, depth: int) -> list[Any]:
        found: list[Any] = []
        self.skip(at + 1)
        while not self.take("]"):
            if found:
                self.expect(",", 'or "]" after an item')
            found.append(self.value(self.at, join(path, len(found)), depth + 1))
        return found

    def string(self, at: int, path: str) -> str:
        try:
            value, end = _STRINGS.raw_decode(self.text, at)
        except JSONDecodeError as error:
            raise TextError(min(error.pos, len(self.text)), "syntax", error.msg) from None
        if _UNSAFE.search(value):
            self.source.problem(at, "bad_character", "NUL and unpaired surrogates are not allowed", path)
        self.skip(end)
        return str(value)

    def number(self, at: int, path: str) -> int | float:
        match = _NUMBER.match(self.text, at)
        if match is None:
            raise self.odd(at)
        self.skip(match.end())
        whole, fraction, exponent = match.groups()
        if fraction or exponent:
            value = float(match[0])
            if isinf(value):
                self.source.problem(at, "bad_number", "this number is too large for a double", path)
            return value
        # Check the length before the conversion: Python raises its own exception for thousands of digits.
        if len(whole) > 17 or abs(int(whole)) > MAX_INTEGER:
            self.source.problem(
                at, "bad_number", "integers beyond 2^53 are not exact in every JSON parser", path
            )
            return 0
        return int(whole)

    def word(self, at: int, path: str) -> Any:
        match = _WORD.match(self.text, at)
        word = match[0] if match else ""
        if match is None or word not in _WORDS:
            raise self.odd(at)
        self.skip(match.end())
        return _WORDS[word]

    def odd(self, at: int) -> TextError:
        """Return the error for something that is not a value."""
        match = _WORD.match(self.text, at)
        found = match[0] if match else self.text[at : at + 1]
        if found.lstrip("-") in ("NaN", "Infinity"):
            return TextError(at, "bad_number", f"{found} is not valid JSON")
        return TextError(at, "syntax", f"expected a value, found {ascii(found) if found else 'the end'}")

    def take(self, char: str) -> bool:
        if self.text[self.at : self.at + 1] != char:
            return False
        self.skip(self.at + 1)
        return True

    def expect(self, char: str, where: str) -> None:
        if not self.take(char):
            raise TextError(self.at, "syntax", f'expected "{char}" {where}')
