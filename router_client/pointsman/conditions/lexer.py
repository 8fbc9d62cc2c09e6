"""Split text into tokens in one pass, with one regular expression without catastrophic backtracking."""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

from pointsman.conditions.nodes import Finding

__all__ = ["ConditionError", "Token", "tokens"]

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n\f]+)
    |(?P<double>[0-9]+\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|\.[0-9]+(?:[eE][+-]?[0-9]+)?)
    |(?P<int>[0-9]+)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<string>"(?:[^"\\\n\r]|\\[^\n\r])*"|'(?:[^'\\\n\r]|\\[^\n\r])*')
    |(?P<op>\|\||&&|==|!=|<=|>=|[<>!()\[\],.\-])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2})|(.))")
_PLAIN = {
    "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?",
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
}  # fmt: skip
_FORBIDDEN = {
    "+": "arithmetic", "*": "arithmetic", "/": "arithmetic", "%": "arithmetic",
    "?": "the conditional operator", ":": "the conditional operator", "{": "maps", "}": "maps",
    "=": 'a single "="; write "=="', "&": 'a single "&"; write "&&"', "|": 'a single "|"; write "||"',
}  # fmt: skip


class ConditionError(Exception):
    """A syntax error with its finding."""

    def __init__(self, at: int, code: str, message: str) -> None:
        self.finding = Finding(at, code, message)
        super().__init__(message)


class Token(NamedTuple):
    """`kind` is a group of the expression above, or `end`. A string's `text` is decoded."""

    kind: str
    text: str
    at: int


def tokens(text: str) -> list[Token]:
    """Return the tokens of a condition, followed by `end`. Raises `ConditionError`."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            _refuse(text, at)
        kind = match.lastgroup or ""
        if kind in ("int", "double") and text[match.end() : match.end() + 1].isalnum():
            raise ConditionError(
                at, "bad_number", f"{match[0]}{text[match.end()]}… is not a plain decimal number"
            )
        if kind != "space":
            found.append(Token(kind, _unquote(match[0], at) if kind == "string" else match[0], at))
        at = match.end()
    found.append(Token("end", "", at))
    return found


def _refuse(text: str, at: int) -> NoReturn:
    char = text[at]
    if char in "\"'":
        raise ConditionError(at, "syntax", "this string has no closing quote")
    if char in _FORBIDDEN:
        raise ConditionError(at, "not_in_subset", f"conditions do not support {_FORBIDDEN[char]}")
    raise ConditionError(at, "syntax", f"unexpected character {ascii(char)}")


def _unquote(quoted: str, at: int) -> str:
    def replace(match: re.Match[str]) -> str:
        two, four, eight, octal, plain = match.groups()
        if plain is not None:
            if plain not in _PLAIN:
                raise ConditionError(
                    at + 1 + match.start(), "bad_escape", f"unknown escape sequence {ascii(match[0])}"
                )
            return _PLAIN[plain]
        code = int(octal, 8) if octal else int(two or four or eight, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or code == 0:
            raise ConditionError(
                at + 1 + match.start(), "bad_escape", f"{match[0]} is not an allowed character"
            )
        return chr(code)

    return _ESCAPE.sub(replace, quoted[1:-1])
