"""Assign units to arms, using only integers so that every language gets exactly the same result.

Shares are per 100,000 (`_pcm`). A unit's bucket depends only on the rollout's salt, so a unit that is in the
candidate at 1 % is also in it at 5 %. Shared vectors: `tests/vectors/bucketing.json`.
"""

from __future__ import annotations

import re
from hashlib import sha256
from struct import Struct

__all__ = ["BUCKETS", "CELLS", "bucket", "cell", "in_candidate", "mirrored"]

BUCKETS = 100_000
CELLS = 1_024
_UINT64 = Struct(">Q").unpack_from
_SURROGATE = re.compile("[\ud800-\udfff]")


def bucket(salt: str, unit: str) -> int:
    """Return the bucket 0 … 99,999 of a unit: the first 64 bits of SHA-256(salt ":" unit), scaled down without
    division.
    """
    text = f"{salt}:{unit}"
    try:
        data = text.encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 encoding. It is replaced, as in browsers, because a request must not fail here.
        data = _SURROGATE.sub("\ufffd", text).encode()
    first_64_bits: int = _UINT64(sha256(data).digest())[0]
    return first_64_bits * BUCKETS >> 64


def in_candidate(mode: str, share_pcm: int, salt: str, unit: str) -> bool:
    """Return whether the candidate serves this unit: all units in `full`, a share in `percentage`, none in `shadow`."""
    return mode == "full" or (mode == "percentage" and bucket(salt, unit) < share_pcm)


def mirrored(mirror_pcm: int, salt: str, unit: str) -> bool:
    """Return whether the other arm's model may also run for this unit.

    It has its own salt, so the sample is independent of the arms.
    """
    return mirror_pcm > 0 and bucket(f"{salt}/mirror", unit) < mirror_pcm


def cell(workload: str, unit: str) -> int:
    """Return the unit's cell 0 … 1,023, the same before and during every rollout of the workload."""
    return bucket(f"{workload}/cells", unit) % CELLS
