"""Signed checkpoints as text: C2SP signed notes (c2sp.org/signed-note) with an Ed25519 signature. Pure.

    pointsman.audit/<chain id>
    <number of the last entry>
    <base64 of its hash>
    <time, RFC 3339>

    — pointsman.audit/<chain id> <base64 of 4 bytes of key hash ‖ 64 bytes of signature>

The signature covers the text up to and including the newline before the empty line.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_ED25519 = b"\x01"  # Ed25519's algorithm number in signed notes
_NOTE = re.compile(
    r"(?P<text>(?P<origin>pointsman\.audit/(?P<chain>\S+))\n(?P<seq>[0-9]{1,18})\n(?P<hash>\S+)\n(?P<at>\S+)\n)\n"
    r"— (?P<name>\S+) (?P<signature>\S+)\n"
)


@dataclass(frozen=True, slots=True)
class Note:
    """The content of a checkpoint: entry `seq` of `chain` had `hash` (hex)."""

    chain: str
    seq: int
    hash: str
    at: str
    text: str
    name: str
    signature: str  # base64

    @property
    def whole(self) -> str:
        """Return the complete note as written."""
        return f"{self.text}\n— {self.name} {self.signature}\n"


def write(chain: str, seq: int, hash_: str, at: str, *, sign: Callable[[bytes], bytes], public: bytes) -> str:
    origin = f"pointsman.audit/{chain}"
    text = f"{origin}\n{seq}\n{base64.b64encode(bytes.fromhex(hash_)).decode()}\n{at}\n"
    signature = base64.b64encode(_key_hash(origin, public) + sign(text.encode())).decode()
    return f"{text}\n— {origin} {signature}\n"


def read_all(text: str) -> list[Note]:
    """Return all notes in a text, in order. A checkpoint file contains several."""
    return [
        Note(
            m["chain"],
            int(m["seq"]),
            _hash_of_base64(m["hash"]),
            m["at"],
            m["text"],
            m["name"],
            m["signature"],
        )
        for m in _NOTE.finditer(text)
    ]


def rest(text: str) -> str:
    """Return the part of a text that is not a note: empty, unless somebody tampered with it."""
    return _NOTE.sub("", text).strip()


def is_signed(note: Note, publics: Iterable[bytes]) -> bool:
    """Return whether one of the keys (32 bytes each) made the note's signature."""
    try:
        raw = base64.b64decode(note.signature, validate=True)
    except binascii.Error:
        return False
    for public in publics:
        if raw[:4] == _key_hash(note.name, public):
            try:
                Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], note.text.encode())
            except InvalidSignature:
                continue
            return True
    return False


def _key_hash(name: str, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def _hash_of_base64(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).hex()
    except binascii.Error:
        return ""
