"""Validation of names used in URLs and on pages. Rejects names that would break either or look like another name."""

import re
import unicodedata

from django.core.exceptions import ValidationError

# Control, format (zero-width, right-to-left), surrogates, private use, unassigned; separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and symbols that render blank: the rest of Default_Ignorable_Code_Point, and the empty Braille cell.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# Django's own message for such a name speaks of slugs.
ADDRESS_NAME = {"invalid": "Use only the letters A to Z and a to z, digits, hyphens and underscores."}
_NOT_IN_ADDRESSES = re.compile(r"[\\%?#;]")


def hidden_character(text: str) -> str | None:
    """Return the first character that people cannot see, as `U+200B`, or None if all are visible."""
    for character in text:
        category = unicodedata.category(character)
        blank = _BLANK.match(character) or (category == "Zs" and character != " ")
        if category in _INVISIBLE or blank:
            return f"U+{ord(character):04X}"
    return None


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
