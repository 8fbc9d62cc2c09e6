"""A passkey in software, like that of a browser with an authenticator (WebAuthn level 3, attestation `none`)."""

import base64
import hashlib
import json
import os
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256

UP, UV, AT = 0x01, 0x04, 0x40  # flags: user present, user verified, attested credential data included


@dataclass
class Passkey:
    """`verifies`: it checks a fingerprint or a PIN. `origin`: that of the page."""

    origin: str = "http://localhost"
    domain: str = "localhost"
    verifies: bool = True
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: os.urandom(16))
    handle: bytes = b""

    def made(self, options: dict[str, Any]) -> str:
        """Return what the browser's script posts for creation options."""
        public = options["publicKey"]
        self.handle = unsafe(public["user"]["id"])
        shape = bytes(16) + len(self.id).to_bytes(2, "big") + self.id
        cose = cbor.encode(dict(ES256.from_cryptography_key(self.key.public_key())))  # type: ignore[no-untyped-call]
        told = self._data(AT) + shape + cose
        attested = cbor.encode({"fmt": "none", "attStmt": {}, "authData": told})
        answer = {"attestationObject": safe(attested), "transports": ["internal"]}
        return self._posted("webauthn.create", public["challenge"], answer, {"credProps": {"rk": True}})

    def used(self, options: dict[str, Any]) -> str:
        """Return what the browser's script posts for request options."""
        challenge, told = options["publicKey"]["challenge"], self._data()
        client = self._client("webauthn.get", challenge)
        signature = self.key.sign(told + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        answer = {
            "authenticatorData": safe(told),
            "signature": safe(signature),
            "userHandle": safe(self.handle),
        }
        return self._posted("webauthn.get", challenge, answer, {})

    def _data(self, more: int = 0) -> bytes:
        flags = UP | (UV if self.verifies else 0) | more
        return hashlib.sha256(self.domain.encode()).digest() + bytes([flags]) + bytes(4)

    def _client(self, kind: str, challenge: str) -> bytes:
        told = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": False}
        return json.dumps(told).encode()

    def _posted(self, kind: str, challenge: str, answer: dict[str, Any], results: dict[str, Any]) -> str:
        answer = {"clientDataJSON": safe(self._client(kind, challenge)), **answer}
        named = {"id": safe(self.id), "rawId": safe(self.id), "type": "public-key"}
        return json.dumps({**named, "response": answer, "clientExtensionResults": results})


def safe(found: bytes) -> str:
    return base64.urlsafe_b64encode(found).decode().rstrip("=")


def unsafe(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
