"""The instance's Ed25519 key (RFC 8032): signs snapshots, so that routers trust bytes and not a network, and the
audit log's checkpoints.

The private key comes from `POINTSMAN_SIGNING_KEY` (base64 of its 32 bytes) or is made at the first start and kept in
the instance's own directory, readable by its user only. Routers get the public key: `manage.py keys public`.
"""

import base64
import binascii
import os
from functools import cache
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from controlplane.core.secretfile import kept

# What is signed says what it is: a checkpoint can never pass for a snapshot.
SNAPSHOT_PREFIX = b"pointsman.snapshot.v1\n"


@cache
def private_key() -> Ed25519PrivateKey:
    text = settings.SIGNING_KEY or kept(Path(settings.VAR_DIR) / "signing-key", _new_private_key)
    try:
        raw = base64.b64decode(text, validate=True)
        return Ed25519PrivateKey.from_private_bytes(raw)
    except (binascii.Error, ValueError):
        raise ImproperlyConfigured(
            "POINTSMAN_SIGNING_KEY is not the base64 of an Ed25519 private key (32 bytes)."
        ) from None


def public_bytes() -> bytes:
    """The 32 bytes that a router checks signatures with."""
    return private_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def trusted_publics() -> list[bytes]:
    """The public keys whose signatures this instance believes: its own."""
    return [public_bytes()]


def public_key_text() -> str:
    """`<key id>:<base64>`, the form that `pointsman.Router(public_keys=…)` takes."""
    return f"{key_id()}:{base64.b64encode(public_bytes()).decode()}"


@cache
def key_id() -> str:
    """The first 16 hex digits of the public key's SHA-256: stable, and tells keys apart while they rotate."""
    return sha256(public_bytes()).hexdigest()[:16]


def sign(message: bytes) -> bytes:
    """The 64 bytes of the signature."""
    return private_key().sign(message)


def sign_snapshot(body: bytes) -> str:
    """The value of `Pointsman-Signature` over the exact bytes of a body, before it is compressed."""
    signature = base64.b64encode(sign(SNAPSHOT_PREFIX + body)).decode()
    return f"keyid={key_id()}, alg=ed25519, sig={signature}"


def _new_private_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()
