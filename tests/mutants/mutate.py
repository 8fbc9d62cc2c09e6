"""Find the mutants of a module: every small change that should make a test fail.

Skipped, because a change there does not affect behaviour, or not in a way worth testing: annotations, docstrings, log
calls, strings, assertions, imports, `__slots__` and `__all__`, column sizes, and blocks for type checkers only.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
SIZES = {"max_length", "max_digits", "decimal_places"}  # keyword arguments of columns and form fields
ASSERTED = "strict"  # keyword argument of `zip`: an assertion that correct code never fails
LOGGERS = {"log", "logger", "logging", "warnings"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change to one module.

    path      the module's file
    number    index of the change among all changes of the module, from 0
    line      line of the changed node
    lines     first and last line that a test must execute to detect it; None: they run when the module is imported
    function  dotted name of the function or class around it; empty at module level
    change    description, such as `x < 1: Lt → LtE`
    """

    path: Path
    number: int
    line: int
    lines: tuple[int, int] | None
    function: str
    change: str


Change = Callable[[Any], None]


def mutants(path: Path) -> list[Mutant]:
    """Return all mutants of a module, in the order of its source."""
    found = _Finder().all(ast.parse(path.read_text()))
    return [
        Mutant(path, number, change.node.lineno, change.lines, change.inside, change.words)
        for number, change in enumerate(found)
    ]


def mutated(mutant: Mutant) -> ast.Module:
    """Return the module's syntax tree with this one change."""
    tree = ast.parse(mutant.path.read_text())
    change = _Finder().all(tree)[mutant.number]
    change.make(change.node)
    return ast.fix_missing_locations(tree)


@dataclass(frozen=True, slots=True)
class _Change:
    node: Any
    lines: tuple[int, int] | None
    inside: str
    words: str
    make: Change


class _Finder:
    """Walks a module's syntax tree and collects the possible changes. Making one modifies its node in place."""

    def all(self, tree: ast.Module) -> list[_Change]:
        self._found: list[_Change] = []
        self._in_function = False
        self._first, self._last = 0, 0  # lines of the current statement; last 0: the node's own last line
        self._block(tree.body, "")
        return self._found

    def _block(self, body: list[ast.stmt], inside: str) -> None:
        for position, statement in enumerate(body):
            if position == 0 and _is_text(statement):
                continue  # the docstring
            if _only_for_types(statement) or _logs(statement):
                continue
            self._first, self._last = statement.lineno, 0
            self._removal(statement, inside)
            self._statement(statement, inside)

    def _statement(self, node: ast.stmt, inside: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            within, outer = f"{inside}.{node.name}".lstrip("."), self._in_function
            self._in_function = True
            # A test detects a changed default only by running the function.
            self._first, self._last = node.body[0].lineno, node.end_lineno or node.lineno
            for default in [*node.args.defaults, *filter(None, node.args.kw_defaults)]:
                self._expression(default, within)
            self._block(node.body, within)
            self._in_function = outer
        elif isinstance(node, ast.ClassDef):
            self._block(node.body, f"{inside}.{node.name}".lstrip("."))
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._expression(node.value, inside)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self._block([child], inside)
                else:
                    self._first, self._last = node.lineno, 0
                    self._expression(child, inside)

    def _removal(self, node: ast.stmt, inside: str) -> None:
        def nothing(statement: ast.stmt) -> None:
            self._replace(statement, ast.Pass())

        match node:
            case ast.Expr(value=ast.Call() | ast.Await()):
                self._add(node, inside, f"removed: {_shown(node)}", nothing)
            case ast.AugAssign():
                self._add(node, inside, f"removed: {_shown(node)}", nothing)
            case ast.Raise():
                self._add(node, inside, f"removed: {_shown(node)}", nothing)
            case ast.Return(value=ast.expr() as value) if not _is_falsy(value) and inside:
                self._add(node, inside, f"{_shown(node)} → return None", _returns_none)
            case ast.Continue():
                self._add(
                    node, inside, "continue → break", lambda statement: self._replace(statement, ast.Break())
                )
            case ast.Break():
                self._add(
                    node,
                    inside,
                    "break → continue",
                    lambda statement: self._replace(statement, ast.Continue()),
                )

    def _expression(self, node: ast.AST, inside: str) -> None:
        self._changes(node, inside)
        if isinstance(node, ast.JoinedStr):
            return
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.keyword) and child.arg in {*SIZES, ASSERTED}:
                continue
            if isinstance(child, ast.Lambda | ast.comprehension | ast.keyword | ast.expr | ast.withitem):
                self._expression(child, inside)
            elif isinstance(child, ast.stmt):
                self._block([child], inside)
            elif isinstance(child, ast.arguments):
                for default in [*child.defaults, *filter(None, child.kw_defaults)]:
                    self._expression(default, inside)

    def _changes(self, node: ast.AST, inside: str) -> None:
        match node:
            case ast.Compare(ops=operators):
                for place, operator in enumerate(operators):
                    opposite = COMPARISONS[type(operator)]
                    words = f"{_shown(node)}: {type(operator).__name__} → {opposite.__name__}"
                    self._add(node, inside, words, _compares(place, opposite))
            case ast.BoolOp(op=ast.And()):
                self._add(node, inside, f"and → or: {_shown(node)}", lambda n: setattr(n, "op", ast.Or()))
            case ast.BoolOp():
                self._add(node, inside, f"or → and: {_shown(node)}", lambda n: setattr(n, "op", ast.And()))
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._add(
                    node,
                    inside,
                    f"without not: {_shown(node)}",
                    lambda n: self._replace(n, copy.copy(operand)),
                )
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                self._add(
                    node, inside, f"without -: {_shown(node)}", lambda n: self._replace(n, copy.copy(operand))
                )
            case ast.BinOp(op=operation) if type(operation) in OPERATORS and not _is_formatting(node):
                swapped = OPERATORS[type(operation)]
                words = f"{_shown(node)}: {type(operation).__name__} → {swapped.__name__}"
                self._add(node, inside, words, lambda n: setattr(n, "op", swapped()))
            case ast.Constant(value=bool() as value):
                self._add(node, inside, f"{value} → {not value}", lambda n: setattr(n, "value", not value))
            case ast.Constant(value=int() | float() as value):
                other = value + 1 if value + 1 != value else value * 2
                self._add(node, inside, f"{value} → {other}", lambda n: setattr(n, "value", other))
            case ast.Dict(keys=[_, _, *_]):
                for place, key in enumerate(node.keys):
                    words = f"entry removed: {_shown(key) if key else '**'}: {_shown(node.values[place])}"
                    self._add(node, inside, words, _without_entry(place))
            case ast.Set(elts=[_, _, *_] as elements) | ast.List(elts=[_, _, *_] as elements):
                for place, element in enumerate(elements):
                    self._add(node, inside, f"element removed: {_shown(element)}", _without_element(place))
            case ast.IfExp(test=test):
                self._add(
                    node,
                    inside,
                    f"other branch: {_shown(node)}",
                    lambda n: setattr(n, "test", _negated(test)),
                )

    def _add(self, node: Any, inside: str, words: str, change: Change) -> None:
        lines = (self._first, self._last or node.end_lineno) if self._in_function else None
        self._found.append(_Change(node, lines, inside, words, change))

    @staticmethod
    def _replace(node: Any, other: ast.AST) -> None:
        """Turn a node into another one in place, because its parent refers to the node itself."""
        node.__class__ = other.__class__
        for field in node._fields:
            if hasattr(other, field):
                setattr(node, field, getattr(other, field))


def _compares(place: int, other: type[ast.cmpop]) -> Change:
    def change(node: ast.Compare) -> None:
        node.ops[place] = other()

    return change


def _without_entry(place: int) -> Change:
    def change(node: ast.Dict) -> None:
        del node.keys[place], node.values[place]

    return change


def _without_element(place: int) -> Change:
    def change(node: ast.Set | ast.List) -> None:
        del node.elts[place]

    return change


def _returns_none(node: ast.Return) -> None:
    node.value = None


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(op=ast.Not(), operand=test)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_falsy(node: ast.expr) -> bool:
    """Return whether the value is a false constant. Returning None instead would be an equivalent mutant."""
    return isinstance(node, ast.Constant) and not node.value


def _is_formatting(node: ast.BinOp) -> bool:
    """Return whether it formats or concatenates a string, or is a type such as `int | None` evaluated at run time."""
    sides: Iterator[ast.AST] = iter((node.left, node.right))
    return any(isinstance(s, ast.Constant) and (s.value is None or isinstance(s.value, str)) for s in sides)


def _only_for_types(node: ast.stmt) -> bool:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
        case ast.Import() | ast.ImportFrom() | ast.Assert():
            return True
    return False


def _logs(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name in LOGGERS
    return False


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:89]}…"
