"""The actor behind a change. Every write takes an `Actor`, keyword-only and without a default, so no change is
anonymous."""

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

Kind = Literal["user", "key", "router", "system", "visitor"]
_LONGEST = 200  # characters of a label, as in the columns that store it


@dataclass(frozen=True, slots=True)
class Actor:
    """A person, a key, a router, the system, or a visitor who is not signed in, as recorded in the audit log.

    `id` is stable and unique within `kind`. `label` is for display, copied so that the entry outlives its subject.
    `user_id` is the person behind an admin key: four-eyes rules count people, not keys.
    """

    kind: Kind
    id: str
    label: str
    user_id: str | None = None

    @classmethod
    def of_user(cls, user: "AbstractBaseUser") -> "Actor":
        return cls("user", str(user.pk), user.get_username(), str(user.pk))

    def __str__(self) -> str:
        return f"{self.kind}:{self.label}"


SYSTEM = Actor("system", "pointsman", "Pointsman")


def key_label(label: str, person: str | None, *, is_agent: bool = False) -> str:
    """Return how a key is written everywhere: `key LABEL of PERSON`, so that nobody takes it for a person or the
    engine. A label that would make it too long for its column is cut."""
    start, end = "agent key " if is_agent else "key ", f" of {person}" if person else ""
    return start + label[: _LONGEST - len(start) - len(end)] + end


def shown(kind: str, label: str) -> str:
    """Return an actor's recorded label for a sentence. Older versions recorded a key's bare label, and let people
    use the engine's names."""
    if kind == "key" and not label.startswith(("key ", "agent key ")):
        return f"key {label}"
    return f"user {label}" if kind == "user" and is_reserved(label) else label


# --- names reserved for the engine -------------------------------------------------------------------------

_RESERVED = re.compile(r"(the)?(pointsman|engine|system)+")
# Letters and signs of other alphabets that look like those of the reserved names. Unicode's own tables fold case,
# width and accents; it has no table for this in Python's standard library.
_LOOK_ALIKES = {
    "a": "аαɑᴀ4@", "e": "еεєᴇ3", "g": "ɡգɢ9", "h": "һհн", "i": "іιıɩɪ1l|!ӏ", "m": "мᴍμ", "n": "пոηɴν", "o": "оοօ0ᴏ",
    "p": "рρᴘ", "s": "ѕꜱ5$ʂ", "t": "тτᴛ7", "y": "уγүʏ",
}  # fmt: skip
_FOLDED = str.maketrans({like: letter for letter, likes in _LOOK_ALIKES.items() for like in likes})


def is_reserved(name: str) -> bool:
    """Return whether a name reads as the engine: Pointsman, engine, system, in any case, width, spacing or with
    characters that look the same."""
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", name).casefold()).translate(_FOLDED)
    letters = "".join(character for character in plain if character.isalnum()).replace("rn", "m")
    return _RESERVED.fullmatch(letters) is not None
