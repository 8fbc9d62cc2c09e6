"""OpenTelemetry's exponential histogram at scale 4, for cost and latency.

Bucket i holds the values in (base^i, base^(i+1)] with base = 2^(1/16): 16 buckets per doubling, so a
bucket's geometric middle is at most 2.2 % off any value in it. The histogram does not depend on the unit
of the values (nano-US-dollars, milliseconds). Zero has its own count; negative values are not allowed.

Router and control plane share this module. If they disagreed on a bucket edge, the share of slow or expensive
tasks would be silently wrong, so `index` is exact: it compares with the doubles next to each edge, which are
computed with integers, and uses no logarithm.

Source: OpenTelemetry, metrics data model, "ExponentialHistogram".
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCALE = 4
PER_DOUBLING = 1 << SCALE
MIN_INDEX = -1075 * PER_DOUBLING  # below the smallest double
MAX_INDEX = 1024 * PER_DOUBLING - 1  # holds the largest


def _edge_mantissa(step: int) -> int:
    """Return floor(2^(step/16) · 2^52) exactly: four nested integer square roots give a sixteenth root."""
    root = 1 << (step + 52 * PER_DOUBLING)
    for _ in range(SCALE):
        root = math.isqrt(root)
    return root


_MANTISSAS = tuple(_edge_mantissa(step) for step in range(PER_DOUBLING))
# For each edge within a doubling: the largest double at or below it, and the smallest double above it.
_AT_OR_BELOW = tuple(math.ldexp(mantissa, -52) for mantissa in _MANTISSAS)
_ABOVE = tuple(math.ldexp(mantissa + 1, -52) for mantissa in _MANTISSAS)


def index(value: float) -> int | None:
    """Return the bucket of a value; None for zero. Raises ValueError for a negative value, NaN or infinity."""
    if not 0 <= value < math.inf:
        raise ValueError(f"a value must be finite and not negative; got {value!r}")
    if value == 0:
        return None
    mantissa, exponent = math.frexp(value)
    return (exponent - 1) * PER_DOUBLING + bisect_right(_ABOVE, mantissa * 2) - 1


def upper_edge(bucket: int) -> float:
    """Return the largest double in the bucket: `index(upper_edge(i)) == i`. Infinity beyond the range of doubles."""
    doublings, step = divmod(bucket + 1, PER_DOUBLING)
    try:
        return math.ldexp(_AT_OR_BELOW[step], doublings)
    except OverflowError:
        return math.inf


def middle(bucket: int) -> float:
    """Return the bucket's geometric middle, the best single estimate of a value in it."""
    return math.pow(2.0, (bucket + 0.5) / PER_DOUBLING)


@dataclass(slots=True)
class Histogram:
    """Sparse counts per bucket. Histograms are merged by addition, in any order."""

    zero: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return self.zero + sum(self.counts.values())

    def record(self, value: float, times: int = 1) -> None:
        """Count a value. Raises ValueError like `index`."""
        bucket = index(value)
        if bucket is None:
            self.zero += times
        else:
            self.counts[bucket] = self.counts.get(bucket, 0) + times

    def merge(self, other: "Histogram") -> None:
        self.zero += other.zero
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count

    def count_above(self, bucket: int) -> int:
        """Return the number of values above that bucket's upper edge."""
        return sum(count for key, count in self.counts.items() if key > bucket)

    def share_above(self, bucket: int) -> float | None:
        """Return the share of values above that bucket's upper edge; None if the histogram is empty."""
        total = self.total
        return self.count_above(bucket) / total if total else None

    def tail_edge(self, share: float) -> int | None:
        """Return the smallest bucket with at most `share` of the values above its upper edge.

        None if the histogram is empty, or if at most `share` of the values are above zero: then no edge
        above zero separates slow from fast.
        """
        allowed = share * self.total
        above, edge = 0, None
        for bucket in sorted(self.counts, reverse=True):
            edge = bucket
            above += self.counts[bucket]
            if above > allowed:
                return edge
        return None

    def quantile(self, q: float) -> float | None:
        """Return the q-quantile (0 … 1) as the middle of its bucket; None if the histogram is empty."""
        if not 0 <= q <= 1:
            raise ValueError(f"q must be between 0 and 1; got {q!r}")
        total = self.total
        if not total:
            return None
        rank = max(1, math.ceil(q * total))
        seen = self.zero
        if rank <= seen:
            return 0.0
        for bucket in sorted(self.counts):
            seen += self.counts[bucket]
            if rank <= seen:
                return middle(bucket)
        raise AssertionError("unreachable: the counts add up to the total")

    def as_dict(self) -> dict[str, Any]:
        """Return the protocol's form: `{"scale": 4, "zero": 0, "counts": {"301": 80}}`."""
        counts = {str(bucket): self.counts[bucket] for bucket in sorted(self.counts)}
        return {"scale": SCALE, "zero": self.zero, "counts": counts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Histogram":
        """Parse the protocol's form. Raises ValueError with the reason if it is invalid."""
        if data.get("scale") != SCALE:
            raise ValueError(f"the histogram's scale must be {SCALE}; got {data.get('scale')!r}")
        counts = data.get("counts")
        if not isinstance(counts, Mapping):
            raise ValueError("the histogram's counts must be an object that maps each bucket to its count")
        read = {_bucket(key): _count(count, f"bucket {key}") for key, count in counts.items()}
        return cls(zero=_count(data.get("zero"), "zero"), counts=read)


def _count(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"the histogram's count of {where} must be a non-negative integer; got {value!r}")
    return value


def _bucket(key: Any) -> int:
    text = str(key)
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 6):
        raise ValueError(f"a histogram bucket must be an integer; got {text[:20]!r}")
    bucket = int(text)
    if not MIN_INDEX <= bucket <= MAX_INDEX or str(bucket) != text:
        raise ValueError(f"a histogram bucket must be between {MIN_INDEX} and {MAX_INDEX}; got {text!r}")
    return bucket
