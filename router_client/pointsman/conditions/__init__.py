"""Conditions: a subset of CEL whose cost is bounded and which cannot fail in the data plane.

    ||  &&  !  ==  !=  <  <=  >  >=  in [literals]  ( )
    has(x)  size(x)  x.startsWith("a")  x.endsWith("a")  x.contains("a")

over typed inputs and literals (string, int, double, bool). Every condition is valid CEL and means the same
(github.com/google/cel-spec) whenever CEL gives an answer; if CEL fails because an input is absent, the
answer is *unknown*. Limits: 2,000 characters, 64 comparisons, 16 parentheses or negations in one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pointsman.conditions.check import check, leaves
from pointsman.conditions.emit import SUPPORT, Emitter
from pointsman.conditions.inputs import FIRST_STAGE, SECOND_STAGE, Input, Type, declared
from pointsman.conditions.lexer import ConditionError
from pointsman.conditions.nodes import Compare, Finding, In, Node, Ref, Test, Truth
from pointsman.conditions.parser import parse_condition
from pointsman.errors import PolicyInvalid
from pointsman.problems import Problem, did_you_mean

__all__ = [
    "FIRST_STAGE", "SECOND_STAGE", "UNKNOWN", "Condition", "Finding", "Input", "Type", "compile_condition",
    "declared", "define", "examine", "inputs_needed",
]  # fmt: skip

# The third truth value. `&&`, `||` and `!` treat it as Kleene's logic does.
UNKNOWN: Final = None


class Condition:
    """A compiled condition. Calling it returns True, False or `UNKNOWN`, and never raises for any input value.

    Shapes: request `{"prompt_tokens": 12, "attributes": {…}}`, response `{"confidence": 0.4}`, history a
    `Window` or `{"failure_rate": 0.1, "tasks": 90}`. A value of another type than declared counts as absent.
    """

    __slots__ = ("_evaluate", "node", "text")

    def __init__(self, text: str, node: Node, evaluate: Callable[..., bool | None]) -> None:
        self.text = text
        self.node = node
        self._evaluate = evaluate

    def __call__(
        self, request: Mapping[str, Any], response: Mapping[str, Any] | None = None, history: Any = None
    ) -> bool | None:
        """Return True, False, or UNKNOWN."""
        return self._evaluate(request, response or {}, history)


def examine(text: str, inputs: Mapping[str, Input]) -> tuple[Node | None, list[Finding]]:
    """Return the tree and all findings. The tree is None if the text is not a condition."""
    try:
        node = parse_condition(text)
    except ConditionError as error:
        return None, [error.finding]
    return node, check(node, inputs)


def compile_condition(text: str, inputs: Mapping[str, Input]) -> Condition:
    """Compile a condition over the given inputs.

    Raises `PolicyInvalid`; lines and columns count within the text.
    """
    node, findings = examine(text, inputs)
    if node is None or any(finding.severity == "error" for finding in findings):
        raise PolicyInvalid([_problem(text, finding) for finding in findings])
    emitter = Emitter(inputs)
    lines = [line for name in _names(node) for line in emitter.load(name)]
    lines.append(f"return True if {emitter.true(node)} else False if {emitter.false(node)} else None")
    return Condition(text, node, define("condition", "request, response, history", lines, emitter.constants))


def _problem(text: str, finding: Finding) -> Problem:
    before = text[: finding.at]
    line, column = before.count("\n") + 1, finding.at - (before.rfind("\n") + 1) + 1
    message = finding.message + (did_you_mean(*finding.near) if finding.near else "")
    return Problem("", finding.code, message, finding.severity, line, column)


def _names(node: Node) -> list[str]:
    """Return every input of a condition once, including those under has()."""
    return list(dict.fromkeys(ref.name for leaf in leaves(node) for ref in _refs(leaf)))


def inputs_needed(node: Node) -> tuple[list[str], list[str]]:
    """Return (every input once, those whose absence can make the condition unknown)."""
    needed = [
        ref.name
        for leaf in leaves(node)
        for ref in _refs(leaf)
        if isinstance(leaf, Compare | In | Test | Truth)
    ]
    return _names(node), list(dict.fromkeys(needed))


def _refs(leaf: Node) -> list[Ref]:
    slots = ("left", "right", "operand", "ref")
    return [operand for slot in slots if isinstance(operand := getattr(leaf, slot, None), Ref)]


def define(name: str, parameters: str, lines: list[str], constants: Mapping[str, Any]) -> Callable[..., Any]:
    """Compile a function with these lines as its body.

    They come from an `Emitter` and contain no text from any policy.
    """
    source = f"def {name}({parameters}):\n" + "".join(f"    {line}\n" for line in lines)
    scope: dict[str, Any] = {"__builtins__": {"Exception": Exception}, **SUPPORT, **constants}
    exec(compile(source, f"<pointsman {name}>", "exec"), scope)  # noqa: S102  # nosec B102
    function: Callable[..., Any] = scope[name]
    return function
