"""The instance's Ed25519 keys (RFC 8032). They sign snapshots, so that routers need not trust the network, and the
audit log's checkpoints.

Private keys come from `POINTSMAN_SIGNING_KEY` (the base64 of 32 bytes each), or are kept in the instance's own
directory, readable only by its user; the first is generated at the first start. The first key signs checkpoints. All
keys sign snapshots: during a rotation there are two, and a router that knows either one accepts them. Routers get the
public keys from `manage.py keys public`. The keys are read again for each use, so `signing_key rotate` takes effect in
every process of the machine.
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

# The prefix names the kind of content, so that a signed checkpoint can never pass for a snapshot.
SNAPSHOT_PREFIX = b"pointsman.snapshot.v1\n"


def key_file() -> Path:
    """Return the path of the private keys, one per line, used when the settings have none."""
    return Path(settings.VAR_DIR) / "signing-key"


def retired_file() -> Path:
    """Return the path of the retired public keys, one per line. Their earlier signatures stay valid."""
    return Path(settings.VAR_DIR) / "signing-key.retired"


def from_settings() -> bool:
    return bool(settings.SIGNING_KEY)


def private_keys() -> tuple[Ed25519PrivateKey, ...]:
    """Return all signing keys, the primary one first. Raises `ImproperlyConfigured`."""
    return _loaded(settings.SIGNING_KEY or kept(key_file(), new_private_text))


@lru_cache(maxsize=4)
def _loaded(text: str) -> tuple[Ed25519PrivateKey, ...]:
    try:
        raw = [base64.b64decode(each, validate=True) for each in re.split(r"[,\s]+", text.strip())]
        return tuple(Ed25519PrivateKey.from_private_bytes(each) for each in raw)
    except (binascii.Error, ValueError):
        raise ImproperlyConfigured(
            "POINTSMAN_SIGNING_KEY must be the base64 of one or more Ed25519 private keys (32 bytes each)."
        ) from None


def private_key() -> Ed25519PrivateKey:
    return private_keys()[0]


def public_of(key: Ed25519PrivateKey) -> bytes:
    """Return the 32-byte public key."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_bytes() -> bytes:
    """Return the 32-byte public key that verifies checkpoints."""
    return public_of(private_key())


def trusted_publics() -> list[bytes]:
    """Return the public keys whose signatures this instance accepts: its current ones and the retired ones."""
    path = retired_file()
    retired = path.read_text().split() if path.exists() else []
    return [*map(public_of, private_keys()), *(base64.b64decode(text.rpartition(":")[2]) for text in retired)]


def public_key_text() -> str:
    """Return `<key id>:<base64>` of each signing key, one per line: the format of `pointsman.Router(public_keys=…)`."""
    return "\n".join(text_of(public_of(key)) for key in private_keys())


def text_of(public: bytes) -> str:
    return f"{id_of(public)}:{base64.b64encode(public).decode()}"


def id_of(public: bytes) -> str:
    """Return the first 16 hex digits of the public key's SHA-256: stable, and distinguishes keys during a rotation."""
    return sha256(public).hexdigest()[:16]


def key_id() -> str:
    """Return the id of the primary key."""
    return id_of(public_bytes())


def key_ids() -> list[str]:
    """Return the ids of all signing keys, the primary one first."""
    return [id_of(public_of(key)) for key in private_keys()]


def signers_id() -> str:
    """Return an id of the set of signing keys. When it changes, everything signed before must be signed again."""
    ids = key_ids()
    return ids[0] if len(ids) == 1 else sha256(" ".join(ids).encode()).hexdigest()[:16]


def sign_snapshot(body: bytes) -> str:
    """Return the `Pointsman-Signature` header for a body's exact bytes before compression: one signature per key."""
    return ", ".join(_signature(key, SNAPSHOT_PREFIX + body) for key in private_keys())


def _signature(key: Ed25519PrivateKey, message: bytes) -> str:
    signed = base64.b64encode(key.sign(message)).decode()
    return f"keyid={id_of(public_of(key))}, alg=ed25519, sig={signed}"


def new_private_text() -> str:
    return base64.b64encode(os.urandom(32)).decode()


def private_texts() -> list[str]:
    return [base64.b64encode(key.private_bytes_raw()).decode() for key in private_keys()]


def keep_private(texts: list[str]) -> None:
    """Replace the file of private keys atomically."""
    replace(key_file(), "\n".join(texts) + "\n")


def keep_retired(public: bytes) -> None:
    path = retired_file()
    before = path.read_text() if path.exists() else ""
    replace(path, f"{before}{text_of(public)}\n")
