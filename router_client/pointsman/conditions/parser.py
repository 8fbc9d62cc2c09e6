"""Parse tokens into a tree: the subset of CEL that routers execute, with its limits."""

from __future__ import annotations

import math
from typing import NoReturn, cast, get_args

from pointsman.conditions.lexer import ConditionError, Token, tokens
from pointsman.conditions.nodes import (
    And,
    Compare,
    Has,
    In,
    Lit,
    Node,
    Not,
    Op,
    Operand,
    Or,
    Ref,
    Test,
    Truth,
)

__all__ = ["MAX_DEPTH", "MAX_LEAVES", "MAX_LENGTH", "parse_condition"]

MAX_LENGTH = 2_000
MAX_DEPTH = 16
MAX_LEAVES = 64

_RELATIONS = frozenset(get_args(Op))
_METHODS = ("startsWith", "endsWith", "contains")
_INT_MAX = 2**63
_AFTER_COMPARISON = {("name", "in"), *(("op", relation) for relation in _RELATIONS)}


def parse_condition(text: str) -> Node:
    """Return the tree of a condition. Raises `ConditionError` at the first token that is not in the subset."""
    if len(text) > MAX_LENGTH:
        raise ConditionError(
            MAX_LENGTH,
            "too_long",
            f"a condition may have at most {MAX_LENGTH:,} characters; this one has {len(text):,}",
        )
    return _Parser(tokens(text)).whole()


class _Parser:
    """A recursive descent parser. `nest` limits the recursion, so no input can exhaust the stack."""

    def __init__(self, stream: list[Token]) -> None:
        self.stream = stream
        self.index = 0
        self.depth = 0
        self.leaves = 0

    # Reading tokens

    @property
    def token(self) -> Token:
        return self.stream[self.index]

    def take(self, text: str) -> bool:
        """Consume an operator or keyword if it is next."""
        token = self.token
        if token.text == text and token.kind in ("op", "name"):
            self.index += 1
            return True
        return False

    def expect(self, text: str, where: str) -> None:
        if not self.take(text):
            self.fail(f'expected "{text}" {where}')

    def fail(self, message: str, code: str = "syntax", at: int | None = None) -> NoReturn:
        token = self.token
        found = "the end" if token.kind == "end" else ascii(token.text)
        text = f"{message}, found {found}" if code == "syntax" else message
        raise ConditionError(token.at if at is None else at, code, text)

    def nest(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} levels deep; split the rule", "too_deep")

    def leaf(self, node: Node) -> Node:
        self.leaves += 1
        if self.leaves > MAX_LEAVES:
            self.fail(
                f"a condition may have at most {MAX_LEAVES} comparisons; split the rule",
                "too_many_leaves",
                node.at,
            )
        return node

    # The grammar, loosest binding first

    def whole(self) -> Node:
        if self.token.kind == "end":
            self.fail("the condition is empty; write one or remove the rule", "empty")
        node = self.node(self.either())
        if self.token.kind != "end":
            self.fail("expected an operator or the end of the condition")
        return node

    def either(self) -> Node | Operand:
        first = self.both()
        if self.token.text != "||" or self.token.kind != "op":
            return first
        parts = [self.node(first)]
        while self.take("||"):
            parts.append(self.node(self.both()))
        return Or(_flat(parts, Or), parts[0].at)

    def both(self) -> Node | Operand:
        first = self.relation()
        if self.token.text != "&&" or self.token.kind != "op":
            return first
        parts = [self.node(first)]
        while self.take("&&"):
            parts.append(self.node(self.relation()))
        return And(_flat(parts, And), parts[0].at)

    def relation(self) -> Node | Operand:
        left = self.unary()
        token = self.token
        if token.kind == "op" and token.text in _RELATIONS:
            self.index += 1
            node = self.leaf(
                Compare(
                    cast("Op", token.text),
                    self.operand(left, token.at),
                    self.operand(self.unary(), token.at),
                    left.at,
                )
            )
        elif token.kind == "name" and token.text == "in":
            self.index += 1
            node = self.leaf(In(self.operand(left, token.at), self.items(), left.at))
        else:
            return left
        if (self.token.kind, self.token.text) in _AFTER_COMPARISON:
            self.fail('comparisons cannot be chained; join them with "&&"', "not_in_subset")
        return node

    def unary(self) -> Node | Operand:
        token = self.token
        if not self.take("!"):
            return self.primary()
        self.nest()
        inner = self.unary()
        self.depth -= 1
        return Not(self.node(inner), token.at)

    def primary(self) -> Node | Operand:
        token = self.token
        if self.take("("):
            self.nest()
            inner = self.either()
            self.expect(")", "to close the parenthesis")
            self.depth -= 1
            return inner
        if token.kind == "name" and token.text not in ("true", "false"):
            return self.name()
        return self.literal()

    def name(self) -> Node | Operand:
        start = self.token
        self.index += 1
        if self.token.text == "(" and self.token.kind == "op":
            return self.function(start)
        parts = [start.text]
        while self.take("."):
            step = self.token
            if step.kind != "name":
                self.fail('expected a name after "."')
            self.index += 1
            if self.token.text == "(" and self.token.kind == "op":
                return self.method(Ref(".".join(parts), start.at), step)
            parts.append(step.text)
        if self.token.kind == "string" and len(parts) == 1:
            self.fail(
                f'unsupported string prefix: {start.text}"…"; remove the prefix',
                "not_in_subset",
                start.at,
            )
        return Ref(".".join(parts), start.at)

    def function(self, name: Token) -> Node | Operand:
        if name.text not in ("has", "size"):
            known = 'supported are has(x), size(x), x.startsWith("…"), x.endsWith("…") and x.contains("…")'
            self.fail(f"unknown function {name.text}(); {known}", "unknown_function", name.at)
        self.index += 1
        inner = self.argument()
        if not isinstance(inner, Ref) or inner.size:
            self.fail(f"{name.text}() takes the name of an input", "wrong_argument", name.at)
        self.expect(")", f"after the argument of {name.text}()")
        if name.text == "size":
            return Ref(inner.name, inner.at, size=True)
        return self.leaf(Has(inner, name.at))

    def argument(self) -> Node | Operand:
        """Read a function's argument. A call within a call is a level: no valid condition has one."""
        if self.token.kind != "name":
            return self.primary()
        called = self.stream[self.index + 1].text == "("
        if called:
            self.nest()
        found = self.name()
        self.depth -= called
        return found

    def method(self, ref: Ref, name: Token) -> Node:
        if name.text not in _METHODS:
            hint = (
                f"; write size({ref.name})"
                if name.text == "size"
                else f"; supported are {', '.join(_METHODS)}"
            )
            self.fail(f"unknown method {name.text}(){hint}", "unknown_function", name.at)
        self.index += 1
        token = self.token
        if token.kind != "string":
            self.fail(f'{name.text}() takes a string in quotes, such as {name.text}("a")', "wrong_argument")
        self.index += 1
        self.expect(")", f"after the argument of {name.text}()")
        return self.leaf(Test(name.text, ref, token.text, ref.at))

    def items(self) -> tuple[Lit, ...]:
        self.expect("[", 'after "in", which takes a list of literals')
        found: list[Lit] = []
        while not self.take("]"):
            if found:
                self.expect(",", 'or "]" in the list')
                # CEL allows a trailing comma.
                if self.take("]"):
                    break
            found.append(self.literal())
        return tuple(found)

    def literal(self) -> Lit:
        at = self.token.at
        sign = -1 if self.take("-") else 1
        token = self.token
        self.index += 1
        if token.kind == "int":
            return Lit(self.integer(token, sign), at, "int")
        if token.kind == "double":
            value = float(token.text) * sign
            if math.isinf(value):
                self.fail(f"{token.text} is too large for a double", "bad_number", at)
            return Lit(value, at, "double")
        if sign == 1 and token.kind == "string":
            return Lit(token.text, at, "string")
        if sign == 1 and token.kind == "name" and token.text in ("true", "false"):
            return Lit(token.text == "true", at, "bool")
        self.index -= 1
        return self.fail("expected an input, a string, a number, true or false")

    def integer(self, token: Token, sign: int) -> int:
        # Check the length before the conversion: Python raises its own exception for thousands of digits.
        digits = token.text.lstrip("0") or "0"
        if len(digits) > 19 or not -_INT_MAX <= sign * int(digits) < _INT_MAX:
            self.fail("an integer must fit in 64 bits", "bad_number", token.at)
        return sign * int(digits)

    # From operands to conditions

    def node(self, found: Node | Operand) -> Node:
        """Turn an operand into a condition: a bool on its own."""
        return self.leaf(Truth(found, found.at)) if isinstance(found, Lit | Ref) else found

    def operand(self, found: Node | Operand, at: int) -> Operand:
        if isinstance(found, Lit | Ref):
            return found
        return self.fail("only inputs and literals can be compared, not conditions", "not_in_subset", at)


def _flat(parts: list[Node], kind: type[And | Or]) -> tuple[Node, ...]:
    """Flatten `(a || b) || c` into `a || b || c`."""
    flat: list[Node] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, kind) else [part])
    return tuple(flat)
