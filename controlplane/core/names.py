"""Validation of names used in URLs and on pages. Rejects names that would break either or look like another name."""

import re
import unicodedata
from collections.abc import Callable

from django.core.exceptions import ValidationError

from pointsman.policy.schema import NAME

# Control, format (zero-width, right-to-left), surrogates, private use, unassigned; separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and symbols that render blank: the rest of Default_Ignorable_Code_Point, and the empty Braille cell.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Django's own message for such a name speaks of slugs.
ADDRESS_NAME = {"invalid": "Use only the letters A to Z and a to z, digits, hyphens and underscores."}
_POLICY_NAME = re.compile(NAME)
# Escape sequences can rewrite what a terminal shows, and these can reorder what a page shows.
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_NOT_IN_ADDRESSES = re.compile(r"[\\%?#;]")


def hidden_character(text: str) -> str | None:
    """Return the first character that people cannot see, as `U+200B`, or None if all are visible."""
    return _first(text, _is_hidden)


def harmful_character(text: str) -> str | None:
    """Return the first character of a text that could change how the rest is shown, as `U+001B`, or None.

    Unlike a name, a text may have line breaks and tabs, and the joiners that some scripts and emoji need.
    """
    return _first(text, _is_harmful)


def _first(text: str, refuses: Callable[[str], bool]) -> str | None:
    return next((f"U+{ord(character):04X}" for character in text if refuses(character)), None)


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    blank = _BLANK.match(character) is not None or (category == "Zs" and character != " ")
    return category in _INVISIBLE or blank


def harmless(text: str) -> str:
    """Return the text with U+FFFD in place of such characters, for texts of routers: they must not be lost."""
    return "".join("\ufffd" if _is_harmful(character) else character for character in text)


def _is_harmful(character: str) -> bool:
    control = unicodedata.category(character) == "Cc" and character not in "\t\n\r"
    return control or _REORDERING.match(character) is not None


def validate_text(text: str) -> None:
    """Validate a reason or a note (a Django validator)."""
    if harmful := harmful_character(text):
        raise ValidationError(f"It contains a control character ({harmful}).")


def validate_policy_name(name: str) -> None:
    """Validate a name that policies must carry (a Django validator)."""
    if not _POLICY_NAME.fullmatch(name):
        raise ValidationError("Begin with a letter or a digit, and use at most 100 characters.")


def validate_name(name: str) -> None:
    """Validate names with slashes, such as `provider/model` (a Django validator). Each part becomes a URL path
    segment."""
    if hidden := hidden_character(name):
        raise ValidationError(f"It contains an invisible character ({hidden}).")
    if unicodedata.normalize("NFC", name) != name:
        raise ValidationError(
            "It is not in Unicode's composed form (NFC), so another name could look the same."
        )
    if found := _NOT_IN_ADDRESSES.search(name):
        raise ValidationError(f"It contains {found[0]!r}, which is not allowed in a URL path.")
    for part in name.split("/"):
        if part in ("", ".", "..") or part != part.strip():
            raise ValidationError(f"The part {part!r} between slashes is not allowed in a URL path.")
