"""The `decision_id`: all that feedback needs to find its arm, so that nobody has to look a decision up.

Layout of version 1: `1.` and base64url (no padding) of CRC-32 (4 bytes, big-endian) ‖ a JSON array of the
fields in the order of `DecisionToken`. The checksum finds a cut or mistyped id; it proves nothing about who
made it.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from typing import NamedTuple
from zlib import crc32

from pointsman.errors import TokenInvalid

__all__ = ["DecisionToken"]

_VERSION = "1."
_LONGEST = 4096
# Made once: `json.dumps` would make an encoder for each id.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DecisionToken(NamedTuple):
    """What a `decision_id` says.

    `at` is Unix seconds; `model` is the policy's own name of the model chosen first.
    """

    environment: str
    workload: str
    rollout: str | None
    stage: int | None
    arm: str
    version: int
    endpoint: str
    rule: str
    model: str
    at: int
    nonce: str

    def encode(self) -> str:
        """The opaque, url-safe form."""
        body = _encode(self).encode("utf-8", "replace")
        packed = urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body)
        return _VERSION + packed.rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, token: str) -> DecisionToken:
        """Read an id back. Raises `TokenInvalid` for anything that `encode` did not make."""
        try:
            return cls._make(cls._fields_of(token))
        except (ValueError, TypeError, RecursionError) as error:
            raise TokenInvalid(f"not a decision id: {error}") from None

    @classmethod
    def _fields_of(cls, token: str) -> list[object]:
        if not isinstance(token, str) or not token.startswith(_VERSION) or len(token) > _LONGEST:
            raise ValueError(
                f'it must be a text of at most {_LONGEST} characters that begins with "{_VERSION}"'
            )
        text = token[len(_VERSION) :]
        packed = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        if packed[:4] != crc32(packed[4:]).to_bytes(4, "big"):
            raise ValueError("its checksum does not match; was it cut?")
        fields = json.loads(packed[4:])
        if not isinstance(fields, list) or [type(field) for field in fields] not in _SHAPES:
            raise ValueError("its fields are not those of version 1")
        return fields


def _shape(rollout: type, stage: type) -> list[type]:
    return [str, str, rollout, stage, str, int, str, str, str, int, str]


_NONE = type(None)
_SHAPES = [_shape(str, int), _shape(str, _NONE), _shape(_NONE, _NONE)]
