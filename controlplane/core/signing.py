"""The instance's Ed25519 keys (RFC 8032): sign snapshots, so that routers trust bytes and not a network, and the
audit log's checkpoints.

Private keys come from `POINTSMAN_SIGNING_KEY` (each the base64 of its 32 bytes) or are kept in the instance's own
directory, readable by its user only; the first is made at the first start. The first signs checkpoints. All sign
snapshots: while keys are changed there are two, and a router that knows either believes them. Routers get the public
keys: `manage.py keys public`. They are read anew each time: `signing_key rotate` reaches every process of the machine.
"""

import base64
import binascii
import os
import re
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from controlplane.core.secretfile import kept, replace

# What is signed says what it is: a checkpoint can never pass for a snapshot.
SNAPSHOT_PREFIX = b"pointsman.snapshot.v1\n"


def key_file() -> Path:
    """The private keys, one a line, where the settings hold none."""
    return Path(settings.VAR_DIR) / "signing-key"


def retired_file() -> Path:
    """The public keys of those that sign no more, one a line: what they signed in the past is still believed."""
    return Path(settings.VAR_DIR) / "signing-key.retired"


def from_settings() -> bool:
    return bool(settings.SIGNING_KEY)


def private_keys() -> tuple[Ed25519PrivateKey, ...]:
    """Every key that signs, the first of them first. Raises `ImproperlyConfigured`."""
    return _loaded(settings.SIGNING_KEY or kept(key_file(), new_private_text))


@lru_cache(maxsize=4)
def _loaded(text: str) -> tuple[Ed25519PrivateKey, ...]:
    try:
        raw = [base64.b64decode(each, validate=True) for each in re.split(r"[,\s]+", text.strip())]
        return tuple(Ed25519PrivateKey.from_private_bytes(each) for each in raw)
    except (binascii.Error, ValueError):
        raise ImproperlyConfigured(
            "POINTSMAN_SIGNING_KEY is not the base64 of an Ed25519 private key (32 bytes), or several of them."
        ) from None


def private_key() -> Ed25519PrivateKey:
    return private_keys()[0]


def public_of(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes that a signature is checked with."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_bytes() -> bytes:
    """The 32 bytes that a checkpoint's signature is checked with."""
    return public_of(private_key())


def trusted_publics() -> list[bytes]:
    """The public keys whose signatures this instance believes: its own, and those that it signed with before."""
    path = retired_file()
    retired = path.read_text().split() if path.exists() else []
    return [*map(public_of, private_keys()), *(base64.b64decode(text.rpartition(":")[2]) for text in retired)]


def public_key_text() -> str:
    """`<key id>:<base64>` of each key that signs, one a line: what `pointsman.Router(public_keys=…)` takes."""
    return "\n".join(text_of(public_of(key)) for key in private_keys())


def text_of(public: bytes) -> str:
    return f"{id_of(public)}:{base64.b64encode(public).decode()}"


def id_of(public: bytes) -> str:
    """The first 16 hex digits of the public key's SHA-256: stable, and tells keys apart while they rotate."""
    return sha256(public).hexdigest()[:16]


def key_id() -> str:
    """Of the first key."""
    return id_of(public_bytes())


def signers_id() -> str:
    """Stands for all keys that sign: another one means that what was signed before must be signed anew."""
    ids = [id_of(public_of(key)) for key in private_keys()]
    return ids[0] if len(ids) == 1 else sha256(" ".join(ids).encode()).hexdigest()[:16]


def sign(message: bytes) -> bytes:
    """The 64 bytes of the signature."""
    return private_key().sign(message)


def sign_snapshot(body: bytes) -> str:
    """The value of `Pointsman-Signature` over the exact bytes of a body, before it is compressed: one by each key."""
    return ", ".join(_signature(key, SNAPSHOT_PREFIX + body) for key in private_keys())


def _signature(key: Ed25519PrivateKey, message: bytes) -> str:
    signed = base64.b64encode(key.sign(message)).decode()
    return f"keyid={id_of(public_of(key))}, alg=ed25519, sig={signed}"


def new_private_text() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def private_texts() -> list[str]:
    return [base64.b64encode(key.private_bytes_raw()).decode() for key in private_keys()]


def keep_private(texts: list[str]) -> None:
    """Replace the file of private keys, at once and whole."""
    replace(key_file(), "\n".join(texts) + "\n")


def keep_retired(public: bytes) -> None:
    path = retired_file()
    before = path.read_text() if path.exists() else ""
    replace(path, f"{before}{text_of(public)}\n")
