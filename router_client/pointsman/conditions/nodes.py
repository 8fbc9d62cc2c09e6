"""The tree of a condition. Every node keeps `at`, its offset in the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pointsman.conditions.inputs import Value
from pointsman.problems import Near

__all__ = [
    "And",
    "Compare",
    "Finding",
    "Has",
    "In",
    "Lit",
    "Node",
    "Not",
    "Op",
    "Operand",
    "Or",
    "Ref",
    "Test",
    "Truth",
]

Op = Literal["==", "!=", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem within a condition's text; `at` is an offset in characters.

    near   a misspelt word and the known ones, from which a suggestion can be made
    """

    at: int
    code: str
    message: str
    severity: Literal["error", "warning"] = "error"
    near: Near | None = field(default=None, compare=False)


# `at` is excluded from equality: equal conditions may be at different positions.
@dataclass(frozen=True, slots=True)
class Lit:
    """A literal."""

    value: Value
    at: int = field(compare=False)
    # In Python True == 1 and 1 == 1.0, but in a condition the kinds differ.
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Ref:
    """An input, or with `size` the number of characters in it."""

    name: str
    at: int = field(compare=False)
    size: bool = False


Operand = Lit | Ref


@dataclass(frozen=True, slots=True)
class Compare:
    """`left op right`."""

    op: Op
    left: Operand
    right: Operand
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class In:
    """`operand in [literals]`."""

    operand: Operand
    items: tuple[Lit, ...]
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Has:
    """`has(input)`: never unknown."""

    ref: Ref
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Test:
    """`input.startsWith("…")`, `endsWith`, `contains`."""

    method: str
    ref: Ref
    text: str
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """A bool input or literal on its own."""

    operand: Operand
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Not:
    """`!part`."""

    part: Node
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """`a && b && …`, flat."""

    parts: tuple[Node, ...]
    at: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Or:
    """`a || b || …`, flat."""

    parts: tuple[Node, ...]
    at: int = field(compare=False)


Node = Compare | In | Has | Test | Truth | Not | And | Or
