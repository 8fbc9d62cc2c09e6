"""The values that comparisons leave for an input, to detect conditions that are never true."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor, inf, isinf

from pointsman.conditions.inputs import Input
from pointsman.conditions.nodes import And, Compare, In, Lit, Node, Not, Op, Or, Ref

__all__ = ["Range", "bounds", "domain", "flipped", "narrowed"]

_FLIP: Mapping[Op, Op] = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_NEGATED: Mapping[Op, Op] = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True, slots=True)
class Range:
    """An interval of numbers whose ends are open or closed.

    `whole` ranges contain only integers, and are kept closed.
    """

    low: float = -inf
    high: float = inf
    low_open: bool = False
    high_open: bool = False
    whole: bool = False

    @property
    def empty(self) -> bool:
        """Whether the interval contains no number."""
        return self.low > self.high or (self.low == self.high and (self.low_open or self.high_open))

    def __and__(self, other: Range) -> Range:
        low, low_open = max((self.low, self.low_open), (other.low, other.low_open))
        high, high_closed = min((self.high, not self.high_open), (other.high, not other.high_open))
        return Range(low, high, low_open, not high_closed, self.whole or other.whole).tidy()

    def __or__(self, other: Range) -> Range:
        """Return the smallest interval that contains both."""
        if self.empty or other.empty:
            return other if self.empty else self
        low, low_open = min((self.low, self.low_open), (other.low, other.low_open))
        high, high_closed = max((self.high, not self.high_open), (other.high, not other.high_open))
        return Range(low, high, low_open, not high_closed, self.whole and other.whole)

    def tidy(self) -> Range:
        """Return a whole range with closed, integral ends."""
        if not self.whole:
            return self
        low, high = self.low, self.high
        if not isinf(low):
            low = floor(low) + 1 if self.low_open else ceil(low)
        if not isinf(high):
            high = ceil(high) - 1 if self.high_open else floor(high)
        return Range(low, high, whole=True)

    def covers(self, other: Range) -> bool:
        """Return whether this interval contains the other."""
        return other.empty or (self & other) == other.tidy()


def flipped(node: Compare) -> tuple[Op, Ref, Lit] | None:
    """Return the comparison with its input on the left; None if it does not compare an input with a literal."""
    if isinstance(node.left, Ref) and isinstance(node.right, Lit):
        return node.op, node.left, node.right
    if isinstance(node.left, Lit) and isinstance(node.right, Ref):
        return _FLIP[node.op], node.right, node.left
    return None


def domain(ref: Ref, known: Input) -> Range:
    """Return all values that the input can have."""
    if ref.size:
        return Range(0, whole=True)
    return Range(known.low, known.high, whole=known.type == "int")


def narrowed(op: Op, value: float) -> Range:
    """Return the numbers x for which `x op value` is true; for `!=` all numbers, which is sufficient here."""
    if op == "==":
        return Range(value, value)
    if op in ("<", "<="):
        return Range(high=value, high_open=op == "<")
    if op in (">", ">="):
        return Range(low=value, low_open=op == ">")
    return Range()


def bounds(node: Node, name: str, start: Range, *, negated: bool = False) -> Range:
    """Return the smallest interval of input `name` outside of which the condition is not true.

    `start` is the input's domain.
    """
    if isinstance(node, Not):
        return bounds(node.part, name, start, negated=not negated)
    if isinstance(node, And | Or):
        parts = [bounds(part, name, start, negated=negated) for part in node.parts]
        return _meet(parts) if isinstance(node, And) is not negated else _hull(parts)
    if isinstance(node, Compare) and (plain := flipped(node)) and plain[1] == Ref(name, 0):
        op, _, literal = plain
        return (
            start & narrowed(_NEGATED[op] if negated else op, float(literal.value))
            if literal.kind != "string"
            else start
        )
    if isinstance(node, In) and node.operand == Ref(name, 0) and not negated:
        return _hull(
            [start & narrowed("==", float(item.value)) for item in node.items if item.kind != "string"]
        )
    return start


def _meet(ranges: Iterable[Range]) -> Range:
    met = Range()
    for found in ranges:
        met = met & found
    return met


def _hull(ranges: Iterable[Range]) -> Range:
    hull = Range(inf, -inf)
    for found in ranges:
        hull = hull | found
    return hull
