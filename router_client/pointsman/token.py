"""The `decision_id`: everything needed to assign feedback to its task's sums, without looking up the decision.

Layout of version 2: `2.` and base64url (no padding) of CRC-32 (4 bytes, big-endian) ‖ a JSON array of the
fields in the order of `DecisionToken`. Version 1, `1.`, ends with the nonce, and is still accepted. The checksum
detects truncated and mistyped ids; it does not authenticate them.
"""

from __future__ import annotations

import json
from base64 import b64decode, urlsafe_b64encode
from typing import Any, NamedTuple
from zlib import crc32

from pointsman.errors import TokenInvalid

__all__ = ["DecisionToken"]

_LONGEST = 4096
# Created once: `json.dumps` would create an encoder for each id.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class DecisionToken(NamedTuple):
    """The content of a `decision_id`.

    rollout, stage   None outside a rollout
    model      the policy's own name of the model that ended the task if `recorded`, otherwise of the first choice
    at         Unix seconds of the decision
    nonce      identifies the decision
    differing  the route pair, "" if the two policies agree, None if unknown
    cell       the unit's cell; None if each request is its own unit, and in version 1
    recorded   whether the task had been recorded when the token was made
    success    the recorded grade; None if there is none
    cost_nusd  the task's cost; None if unknown
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
    differing: str | None = None
    cell: int | None = None
    recorded: bool = False
    success: bool | None = None
    cost_nusd: int | None = None

    def encode(self) -> str:
        """Return the opaque, URL-safe form."""
        body = _encode(self).encode("utf-8", "replace")
        packed = urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body)
        return "2." + packed.rstrip(b"=").decode("ascii")

    @classmethod
    def decode(cls, token: str) -> DecisionToken:
        """Decode an id. Raises `TokenInvalid` for anything not made by `encode`."""
        try:
            return cls(*_fields_of(token))
        except (ValueError, TypeError, RecursionError) as error:
            raise TokenInvalid(f"not a decision id: {error}") from None


_NONE = type(None)
_TEXT, _TEXT_OR_NONE, _INT, _INT_OR_NONE = (str,), (str, _NONE), (int,), (int, _NONE)
_FIRST = (
    _TEXT, _TEXT, _TEXT_OR_NONE, _INT_OR_NONE, _TEXT, _INT, _TEXT, _TEXT, _TEXT, _INT, _TEXT,
)  # fmt: skip
_KINDS: dict[str, tuple[tuple[type, ...], ...]] = {
    "1.": _FIRST,
    "2.": (*_FIRST, _TEXT_OR_NONE, _INT_OR_NONE, (bool,), (bool, _NONE), _INT_OR_NONE),
}


def _fields_of(token: str) -> list[Any]:
    kinds = _KINDS.get(token[:2]) if isinstance(token, str) else None
    if kinds is None or len(token) > _LONGEST:
        raise ValueError(f'it must be a text of at most {_LONGEST} characters that begins with "1." or "2."')
    text = token[2:]
    packed = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if packed[:4] != crc32(packed[4:]).to_bytes(4, "big"):
        raise ValueError("its checksum does not match; was it truncated?")
    fields = json.loads(packed[4:])
    if not isinstance(fields, list) or len(fields) != len(kinds):
        raise ValueError(f"its fields are not those of version {token[0]}")
    if any(type(value) not in kind for value, kind in zip(fields, kinds, strict=True)):
        raise ValueError(f"its fields are not those of version {token[0]}")
    if fields[2] is None and fields[3] is not None:
        raise ValueError("it names a stage without a rollout")
    if len(fields) > len(_FIRST) and any(n is not None and n < 0 for n in (fields[12], fields[15])):
        raise ValueError("its figures are not those of a task")
    return fields
