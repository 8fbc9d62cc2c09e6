"""Generate Python source for conditions, without a call or an exception on the usual path.

Three-valued logic is implemented without a third value: a condition has two expressions, *certainly true* and
*certainly false*. An absent input (None) makes both false; if neither is true, the condition is
unknown. A rule evaluates only the first; the second is used if an input was absent, to distinguish false from
unknown.

No text of a policy becomes part of the source. Names are numbered (`v0`, `k0`), and literals are passed as
constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from operator import index
from sys import intern
from typing import Any

from pointsman.conditions.inputs import Input, Type
from pointsman.conditions.nodes import And, Compare, Has, In, Lit, Node, Not, Operand, Or, Ref, Test, Truth
from pointsman.history import Window

__all__ = ["SUPPORT", "Emitter"]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _int(value: Any) -> Any:
    """Return an int, also for an integral float, since JSON does not distinguish them. Anything else is absent."""
    if value is None or isinstance(value, bool | str):
        return None
    if isinstance(value, float):
        return value if value.is_integer() else None
    try:
        return index(value)
    except TypeError:
        return None


def _double(value: Any) -> Any:
    if isinstance(value, int | float):
        return None if isinstance(value, bool) else value
    return float(value) if isinstance(value, Real) else None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _reading(history: Any) -> tuple[float | None, int | None]:
    """Return (failure rate, tasks) of a `Window`, a mapping, or None."""
    if history is None:
        return None, None
    if isinstance(history, Mapping):
        return _double(history.get("failure_rate")), _int(history.get("tasks"))
    reading: tuple[float | None, int | None] = history.reading()
    return reading


SUPPORT: dict[str, Any] = {
    "to_string": _text, "to_int": _int, "to_double": _double, "to_bool": _bool,
    "mapping": _mapping, "reading": _reading, "str": str, "int": int, "float": float, "bool": bool,
    "type": type, "dict": dict, "len": len, "Window": Window,
}  # fmt: skip
_PYTHON: dict[Type, str] = {"string": "str", "int": "int", "double": "float", "bool": "bool"}
_METHODS = {"startsWith": "startswith", "endsWith": "endswith"}


class Emitter:
    """The state of one generated function: the inputs already loaded, and its constants."""

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self.inputs = inputs
        self.constants: dict[str, Any] = {}
        self.locals: dict[str, str] = {}
        self._roots: set[str] = set()

    def constant(self, value: Any) -> str:
        """Return the name of a value in the source."""
        name = f"k{len(self.constants)}"
        self.constants[name] = value
        return name

    def load(self, name: str) -> list[str]:
        """Return the lines that load an input into its local variable, once per function.

        A value of another type counts as absent.
        """
        if name in self.locals:
            return []
        local = self.locals[name] = f"v{len(self.locals)}"
        known = self.inputs[name]
        root, _, key = name.rpartition(".")
        if root == "history":
            return [*self._root(root), f"{local} = {'rate' if key == 'failure_rate' else 'tasks'}"]
        lines = [
            *self._root(root),
            f"{local} = {_GETTERS[root]}({self.constant(intern(key))})",
            f"if type({local}) is not {_PYTHON[known.type]}: {local} = to_{known.type}({local})",
        ]
        if known.default is not None:
            lines.append(f"if {local} is None: {local} = {self.constant(known.default)}")
        return lines

    def _root(self, root: str) -> list[str]:
        if root in self._roots:
            return []
        self._roots.add(root)
        return _ROOTS[root]

    # Conditions

    def true(self, node: Node) -> str:
        """Return an expression that is true exactly if the condition is certainly true."""
        return self._emit(node, True)

    def false(self, node: Node) -> str:
        """Return an expression that is true exactly if the condition is certainly false."""
        return self._emit(node, False)

    def _emit(self, node: Node, wanted: bool) -> str:
        match node:
            case Not():
                return self._emit(node.part, not wanted)
            case And() | Or():
                word = " and " if isinstance(node, And) is wanted else " or "
                return f"({word.join(self._emit(part, wanted) for part in node.parts)})"
            case Has():
                return f"{self.locals[node.ref.name]} is {'not ' if wanted else ''}None"
            case Compare():
                return self._compare(node, wanted)
            case In():
                return self._in(node, wanted)
            case Test():
                return self._test(node, wanted)
            case Truth():
                return self._truth(node.operand, wanted)

    def _compare(self, node: Compare, wanted: bool) -> str:
        text = f"{self._operand(node.left)} {node.op} {self._operand(node.right)}"
        # None equals no literal, so an equality needs no check for the presence of the input.
        plain = (
            Lit in (type(node.left), type(node.right)) and not _sized(node.left) and not _sized(node.right)
        )
        if wanted and plain and node.op == "==":
            return text
        return self._guarded((node.left, node.right), text if wanted else f"not {text}")

    def _in(self, node: In, wanted: bool) -> str:
        items = self.constant(frozenset(item.value for item in node.items))
        text = f"{self._operand(node.operand)} {'in' if wanted else 'not in'} {items}"
        return text if wanted and not _sized(node.operand) else self._guarded((node.operand,), text)

    def _test(self, node: Test, wanted: bool) -> str:
        local, text = self.locals[node.ref.name], self.constant(node.text)
        if node.method == "contains":
            called = f"{text} {'in' if wanted else 'not in'} {local}"
        else:
            called = f"{'' if wanted else 'not '}{local}.{_METHODS[node.method]}({text})"
        return self._guarded((node.ref,), called)

    def _truth(self, operand: Operand, wanted: bool) -> str:
        if isinstance(operand, Lit):
            return str(operand.value is wanted)
        return f"{self.locals[operand.name]} is {wanted}"

    def _guarded(self, operands: tuple[Operand, ...], text: str) -> str:
        there = dict.fromkeys(
            f"{self.locals[operand.name]} is not None" for operand in operands if isinstance(operand, Ref)
        )
        return f"({' and '.join(there)} and {text})"

    def _operand(self, operand: Operand) -> str:
        if isinstance(operand, Ref):
            local = self.locals[operand.name]
            return f"len({local})" if operand.size else local
        return self.constant(operand.value)

    def gaps(self, names: list[str]) -> str:
        """Return an expression that is true if one of the inputs is absent; empty if none can be."""
        can_lack = [name for name in names if self.inputs[name].default is None]
        return " or ".join(f"{self.locals[name]} is None" for name in can_lack)


def _sized(operand: Operand) -> bool:
    return isinstance(operand, Ref) and operand.size


_GETTERS = {"request": "get", "request.attributes": "attribute", "response": "answer"}
_ROOTS = {
    "request": ["get = request.get"],
    "request.attributes": [
        'attributes = request.get("attributes")',
        "attribute = (attributes if type(attributes) is dict else mapping(attributes)).get",
    ],
    "response": ["answer = response.get"],
    # A router's own window is read directly, which saves a call and an abstract isinstance check.
    "history": ["rate, tasks = history.reading() if type(history) is Window else reading(history)"],
}
