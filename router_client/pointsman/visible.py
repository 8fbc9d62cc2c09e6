"""Text for a terminal: other people's control characters are shown, so they neither move its cursor nor hide text."""

from __future__ import annotations

import json
from typing import Any
from unicodedata import category

__all__ = ["json_text", "one_line", "visible", "visible_json"]

_LAYOUT = "\n\t"
# Control and format characters, lone surrogates, and what some programs take for a line break.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def visible(text: object, keep: str = _LAYOUT) -> str:
    r"""Return the text with its control and format characters as `\x1b` or `\u202e`, except those in `keep`."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(one if one in keep or not _is_unseen(one) else _escaped(one) for one in found)


def one_line(text: object) -> str:
    r"""Return the text on one line: a line break in it is `\n`, so that it cannot pass for a line of ours."""
    return visible(text, keep="")


def json_text(document: Any) -> str:
    r"""Return indented JSON whose strings are readable, with control and format characters as `\u202e`."""
    return visible_json(json.dumps(document, indent=2, ensure_ascii=False))


def visible_json(text: str) -> str:
    """Return JSON with the control and format characters of its strings escaped."""
    if text.isascii() and "\x7f" not in text:  # the encoder escapes the others
        return text
    return "".join(json.dumps(one)[1:-1] if one != "\n" and _is_unseen(one) else one for one in text)


def _is_unseen(one: str) -> bool:
    return not one.isprintable() and category(one) in _UNSEEN


def _escaped(one: str) -> str:
    return one.encode("unicode_escape").decode("ascii")
