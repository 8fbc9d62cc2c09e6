"""Names that can stand in an address and on a page: what would break either, or show another name, is refused."""

import re
import unicodedata

from django.core.exceptions import ValidationError

# Control, format (zero-width, right-to-left), surrogates, private use, unassigned; separators of lines and paragraphs.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
# Letters, marks and symbols that are blank: the rest of Default_Ignorable_Code_Point, and the empty Braille cell.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_NOT_IN_ADDRESSES = re.compile(r"[\\%?#;]")


def hidden_character(text: str) -> str | None:
    """The first character that people cannot see, as `U+200B`; None for a text that they read as it is."""
    for character in text:
        category = unicodedata.category(character)
        blank = _BLANK.match(character) or (category == "Zs" and character != " ")
        if category in _INVISIBLE or blank:
            return f"U+{ord(character):04X}"
    return None


def validate_name(name: str) -> None:
    """A Django validator for names with slashes: `provider/model`. Each part stands in an address of its own."""
    if hidden := hidden_character(name):
        raise ValidationError(f"It holds a character that cannot be seen ({hidden}).")
    if unicodedata.normalize("NFC", name) != name:
        raise ValidationError("It is not in Unicode's composed form (NFC): another name could look the same.")
    if found := _NOT_IN_ADDRESSES.search(name):
        raise ValidationError(f"It holds {found[0]!r}, which an address cannot carry.")
    for part in name.split("/"):
        if part in ("", ".", "..") or part != part.strip():
            raise ValidationError(f"It has the part {part!r} between slashes, which an address cannot carry.")
