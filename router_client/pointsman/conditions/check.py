"""Check a condition's tree against the inputs: names, types, and whether it can ever be true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pointsman.conditions.inputs import SECOND_STAGE, Input
from pointsman.conditions.nodes import (
    And,
    Compare,
    Finding,
    Has,
    In,
    Lit,
    Node,
    Not,
    Operand,
    Or,
    Ref,
    Test,
    Truth,
)
from pointsman.conditions.ranges import Range, domain, flipped, narrowed
from pointsman.problems import Severity

__all__ = ["check", "leaves"]

Inputs = Mapping[str, Input]


def leaves(node: Node) -> Iterator[Node]:
    """Yield the comparisons of a condition, from left to right."""
    if isinstance(node, Not):
        yield from leaves(node.part)
    elif isinstance(node, And | Or):
        for part in node.parts:
            yield from leaves(part)
    else:
        yield node


def check(node: Node, inputs: Inputs) -> list[Finding]:
    """Return all findings in a condition. If there is an `error`, it must not be compiled."""
    found = [finding for leaf in leaves(node) for finding in _leaf(leaf, inputs)]
    if not any(finding.severity == "error" for finding in found):
        found += _conjunctions(node, inputs)
    return found


def _leaf(node: Node, inputs: Inputs) -> list[Finding]:
    unknown = [finding for ref in _refs(node) for finding in _name(ref, inputs)]
    if unknown:
        return unknown
    match node:
        case Compare():
            return _compare(node, inputs)
        case In():
            return _in(node, inputs)
        case Test():
            return _test(node, inputs)
        case Truth():
            return _truth(node, inputs)
        case Has() if inputs[node.ref.name].default is not None:
            text = f"has({node.ref.name}) is always true: the input has a default"
            return [Finding(node.at, "always_holds", text, "warning")]
    return []


def _refs(node: Node) -> list[Ref]:
    match node:
        case Compare():
            operands: list[Operand] = [node.left, node.right]
        case In() | Truth():
            operands = [node.operand]
        case Has() | Test():
            operands = [node.ref]
        case _:
            operands = []
    return [operand for operand in operands if isinstance(operand, Ref)]


def _name(ref: Ref, inputs: Inputs) -> list[Finding]:
    known, name = inputs.get(ref.name), ref.name[:100]
    if known is not None:
        if ref.size and known.type != "string":
            return [
                Finding(
                    ref.at, "wrong_type", f"size() takes a string, but {ref.name} is of type {known.type}"
                )
            ]
        return []
    if ref.name in SECOND_STAGE:
        text = f"{name} is known only after an answer; use it only in escalate.when"
        return [Finding(ref.at, "unknown_input", text)]
    declared = name.startswith("request.attributes.")
    text = f"{name} is not declared; declare it under inputs" if declared else f"unknown input {name}"
    return [Finding(ref.at, "unknown_input", text, near=(ref.name, inputs))]


def _type(operand: Operand, inputs: Inputs) -> str:
    if isinstance(operand, Lit):
        return operand.kind
    return "int" if operand.size else inputs[operand.name].type


def _comparable(one: str, other: str) -> bool:
    return one == other or {one, other} <= {"int", "double"}


def _compare(node: Compare, inputs: Inputs) -> list[Finding]:
    if isinstance(node.left, Lit) and isinstance(node.right, Lit):
        return [
            Finding(
                node.at, "constant", "both sides are literals, so the result does not depend on the request"
            )
        ]
    left, right = _type(node.left, inputs), _type(node.right, inputs)
    if not _comparable(left, right):
        text = (
            f"{_show(node.left)} is of type {left} and {_show(node.right)} of type {right}; "
            "they cannot be compared"
        )
        return [Finding(node.at, "wrong_type", text)]
    if left == "bool" and node.op not in ("==", "!="):
        return [Finding(node.at, "wrong_type", f'bools have no order; use "==" or "!=", not "{node.op}"')]
    plain = flipped(node)
    if plain is None:
        return []
    op, ref, literal = plain
    known = inputs[ref.name]
    if known.values and not ref.size and op in ("==", "!="):
        return _listed(op, ref, known, literal)
    if not isinstance(literal.value, str | bool):
        return _ranged(node, domain(ref, known), narrowed(op, literal.value), ref)
    return []


def _listed(op: str, ref: Ref, known: Input, literal: Lit) -> list[Finding]:
    if literal.value in known.values:
        return []
    outcome = "never" if op == "==" else "always"
    text = f"{ref.name} is one of {', '.join(known.values)}, so this is {outcome} true"
    severity: Severity = "error" if op == "==" else "warning"
    return [Finding(literal.at, f"{outcome}_holds", text, severity, (literal.value, known.values))]


def _ranged(node: Compare, whole: Range, left: Range, ref: Ref) -> list[Finding]:
    if (whole & left).empty:
        return [Finding(node.at, "never_holds", f"{_show(ref)} {_words(whole)}, so this is never true")]
    if node.op != "!=" and left.covers(whole):
        return [
            Finding(
                node.at, "always_holds", f"{_show(ref)} {_words(whole)}, so this is always true", "warning"
            )
        ]
    return []


def _words(whole: Range) -> str:
    kind = "is an integer" if whole.whole else "is a number"
    if whole.low > float("-inf") and whole.high < float("inf"):
        return f"{kind} from {whole.low:g} to {whole.high:g}"
    return f"{kind} of at least {whole.low:g}" if whole.low > float("-inf") else kind


def _in(node: In, inputs: Inputs) -> list[Finding]:
    if isinstance(node.operand, Lit):
        return [
            Finding(
                node.at, "constant", "both sides are literals, so the result does not depend on the request"
            )
        ]
    if not node.items:
        return [Finding(node.at, "never_holds", "the list is empty, so this is never true")]
    known, kind = inputs[node.operand.name], _type(node.operand, inputs)
    found: list[Finding] = []
    for item in node.items:
        if not _comparable(kind, item.kind):
            text = (
                f"{_show(node.operand)} is of type {kind} and {_show(item)} of type {item.kind}; "
                "they are never equal"
            )
            found.append(Finding(item.at, "wrong_type", text))
        elif known.values and not node.operand.size:
            found += _listed("==", node.operand, known, item)
        elif not isinstance(item.value, str | bool):
            one = Compare("==", node.operand, item, item.at)
            found += _ranged(one, domain(node.operand, known), narrowed("==", item.value), node.operand)
    return [finding for finding in found if finding.code != "always_holds"]


def _test(node: Test, inputs: Inputs) -> list[Finding]:
    known = inputs[node.ref.name]
    if known.type != "string":
        return [
            Finding(
                node.at,
                "wrong_type",
                f"{node.method}() takes a string, but {node.ref.name} is of type {known.type}",
            )
        ]
    tests = {"startsWith": str.startswith, "endsWith": str.endswith, "contains": str.__contains__}
    if known.values and not any(tests[node.method](value, node.text) for value in known.values):
        text = f"{node.ref.name} is one of {', '.join(known.values)}, so this is never true"
        return [Finding(node.at, "never_holds", text)]
    return []


def _truth(node: Truth, inputs: Inputs) -> list[Finding]:
    kind = _type(node.operand, inputs)
    if kind != "bool":
        return [
            Finding(
                node.at, "wrong_type", f"{_show(node.operand)} is of type {kind}; compare it with a value"
            )
        ]
    if isinstance(node.operand, Lit) and node.operand.value is False:
        return [Finding(node.at, "never_holds", "this is never true")]
    return []


def _show(operand: Operand) -> str:
    if isinstance(operand, Ref):
        return f"size({operand.name})" if operand.size else operand.name
    if operand.kind == "string":
        return f'"{operand.value}"' if len(str(operand.value)) <= 40 else "the string"
    return str(operand.value).lower()


def _conjunctions(node: Node, inputs: Inputs) -> list[Finding]:
    """Find parts of one `&&` that exclude each other, at any depth outside a negation."""
    if isinstance(node, Or):
        return [finding for part in node.parts for finding in _conjunctions(part, inputs)]
    if not isinstance(node, And):
        return []
    found = [finding for part in node.parts for finding in _conjunctions(part, inputs)]
    return found + _exclusions(node, inputs)


def _exclusions(node: And, inputs: Inputs) -> list[Finding]:
    numbers: dict[Ref, Range] = {}
    texts: dict[Ref, frozenset[object]] = {}
    absent = {part.part.ref for part in node.parts if isinstance(part, Not) and isinstance(part.part, Has)}
    for part in node.parts:
        for ref in _refs(part):
            if Ref(ref.name, 0) in absent and not isinstance(part, Has):
                return [Finding(part.at, "never_holds", f"{ref.name} is absent here, so this is never true")]
        allowed = _allowed(part)
        if allowed is None:
            continue
        ref, values = allowed
        if isinstance(values, Range):
            numbers[ref] = numbers.get(ref, domain(ref, inputs[ref.name])) & values
            empty = numbers[ref].empty
        else:
            texts[ref] = texts.get(ref, values) & values
            empty = not texts[ref]
        if empty:
            text = f"the comparisons before it rule out every value of {_show(ref)}, so this is never true"
            return [Finding(part.at, "never_holds", text)]
    return []


def _allowed(node: Node) -> tuple[Ref, Range | frozenset[object]] | None:
    """Return the values that a comparison allows for its input."""
    if isinstance(node, Compare) and (plain := flipped(node)):
        op, ref, literal = plain
        if not isinstance(literal.value, str | bool):
            return ref, narrowed(op, literal.value)
        return (ref, frozenset([literal.value])) if op == "==" else None
    if (
        isinstance(node, In)
        and isinstance(node.operand, Ref)
        and all(isinstance(i.value, str) for i in node.items)
    ):
        return node.operand, frozenset(item.value for item in node.items)
    return None
