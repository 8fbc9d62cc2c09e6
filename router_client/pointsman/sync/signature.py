"""The control plane's signature of a snapshot: Ed25519 over the exact bytes, checked before parsing.

The header is `Pointsman-Signature: keyid=<id>, alg=ed25519, sig=<base64>`, with several signatures while keys
are being rotated. The signed bytes begin with `pointsman.snapshot.v1\\n`, so that a signature made for
another purpose never fits a snapshot.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pointsman.errors import ConfigurationError, SnapshotRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["PREFIX", "PublicKeys", "Trusted"]

Trusted = Mapping[str, str | bytes] | Iterable[str]

PREFIX = b"pointsman.snapshot.v1\n"
_SIGNATURE = re.compile(r"keyid=([^,;\s]+)\s*,\s*alg=([a-z0-9]+)\s*,\s*sig=([A-Za-z0-9+/]+={0,2})")


class PublicKeys:
    """The keys that a router trusts: `{key id: key}`, where a key is 32 raw bytes, their base64, or PEM.

    They may also be text: `"<key id>:<base64>"`, one or several, in a list or separated by blanks, lines or commas.

    Raises ConfigurationError for any other form, or if `cryptography` is missing: a router
    configured to verify must not start without it.
    """

    def __init__(self, keys: Trusted) -> None:
        named = _named(keys)
        if not named:
            raise ConfigurationError(
                "public_keys is empty: give at least one key, or None to trust the connection alone"
            )
        self._keys = {keyid: _load(keyid, key) for keyid, key in named.items()}

    def verify(self, body: bytes, header: str | None) -> None:
        """Raise SnapshotRefused unless a trusted key signed these bytes."""
        from cryptography.exceptions import InvalidSignature

        if not header:
            raise SnapshotRefused(
                "signature_missing", "the snapshot is not signed, and this router accepts only signed ones"
            )
        signatures = [(keyid, sig) for keyid, alg, sig in _SIGNATURE.findall(header) if alg == "ed25519"]
        known = [(self._keys[keyid], sig) for keyid, sig in signatures if keyid in self._keys]
        if not known:
            given = ", ".join(keyid for keyid, _ in signatures) or "none that can be read"
            raise SnapshotRefused(
                "signature_unknown", f"signed by {given}; this router trusts {', '.join(self._keys)}"
            )
        for key, signature in known:
            try:
                return key.verify(b64decode(signature), PREFIX + body)
            except (InvalidSignature, ValueError):
                continue
        raise SnapshotRefused(
            "signature_invalid", "the signature does not match the body, which was altered in transit"
        )


def _named(keys: Trusted) -> Mapping[str, str | bytes]:
    if isinstance(keys, Mapping):
        return keys
    texts = keys.replace(",", " ").split() if isinstance(keys, str) else keys
    pairs = [text.partition(":") for text in texts]
    return {keyid.strip(): key.strip() for keyid, _, key in pairs}


def _load(keyid: str, key: str | bytes) -> Ed25519PublicKey:
    try:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError as error:
        raise ConfigurationError(
            "verifying snapshots needs cryptography: pip install 'pointsman[signing]'"
        ) from error
    try:
        raw = key.encode() if isinstance(key, str) else key
        if raw.lstrip().startswith(b"-----BEGIN"):
            loaded = load_pem_public_key(raw)
            if isinstance(loaded, Ed25519PublicKey):
                return loaded
            raise ValueError("the PEM contains another kind of key")
        return Ed25519PublicKey.from_public_bytes(raw if len(raw) == 32 else b64decode(raw, validate=True))
    except ValueError as error:
        raise ConfigurationError(
            f"public key {keyid!r}: {error}. Give an Ed25519 key as 32 bytes, their base64, or PEM"
        ) from None
