"""Convert policies to flagd flag definitions (https://flagd.dev/reference/flag-definitions).

A workload becomes a flag, its models the variants, and its rules the targeting in JsonLogic. The request's inputs are
the evaluation context: standard inputs and attributes by their own names.

flagd does not support rollouts (its buckets differ from Pointsman's, so units would be in other arms than in routers),
`history.*`, the number of characters in an input, second stages, retries and outcomes. A policy with a rule that needs
them is refused. A rule whose input is missing does not match, as in a router.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pointsman.conditions import examine
from pointsman.conditions.inputs import FIRST_STAGE, Input, declared
from pointsman.conditions.nodes import And, Compare, Has, In, Lit, Node, Not, Operand, Or, Ref, Test, Truth
from pointsman.errors import ConfigurationError

__all__ = ["SCHEMA", "definitions", "flag"]

SCHEMA = "https://flagd.dev/schema/v0/flags.json"
_ATTRIBUTE = "request.attributes."
_REQUEST = "request."
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_STRICT = {"==": "===", "!=": "!=="}
_METHODS = {"startsWith": "starts_with", "endsWith": "ends_with"}
Logic = Any  # a JsonLogic expression


def definitions(policies: Iterable[Mapping[str, Any]], pins: Mapping[str, str] | None = None) -> str:
    """Return the JSON of a flag definition file.

    policies  validated documents, one per workload
    pins      workload → pinned model (the policy's own name)
    Raises `ConfigurationError` with the workload and the rule for anything that flagd does not support.
    """
    flags = {
        policy["workload"]: flag(policy, (pins or {}).get(policy["workload"], "")) for policy in policies
    }
    return json.dumps({"$schema": SCHEMA, "flags": flags}, indent=2, ensure_ascii=False) + "\n"


def flag(policy: Mapping[str, Any], pin: str = "") -> dict[str, Any]:
    """Return one workload's flag, whose values are objects with `model` and `params`. A pin removes the targeting."""
    variants = {
        alias: {"model": entry["model"], "params": dict(entry.get("params", {}))}
        for alias, entry in policy["models"].items()
    }
    if pin and pin not in variants:
        raise ConfigurationError(f"{policy['workload']}: the pin {pin!r} is not one of its models.")
    inputs = declared(policy.get("inputs"), FIRST_STAGE)
    logic, branches = _Logic(inputs), list[Logic]()
    for rule in () if pin else policy.get("rules", ()):
        node, _ = examine(rule["when"], inputs)
        if node is None:
            raise ConfigurationError(f"{policy['workload']}, rule {rule['id']}: validate the policy first.")
        try:
            branches += [logic.of(node), rule["use"]]
        except _Impossible as what:
            raise ConfigurationError(
                f"{policy['workload']}, rule {rule['id']}: flagd does not support {what}."
            ) from None
    default = pin or policy["default"]
    found = {"state": "ENABLED", "variants": variants, "defaultVariant": default}
    if branches:
        found["targeting"] = {"if": [*branches, default]}
    return found


class _Impossible(Exception):
    """A feature that flagd does not support; the message names it."""


class _Logic:
    """Conditions as JsonLogic.

    Logic is three-valued, as in a router: a node is true, false or unknown (an input is missing). True and false have
    separate expressions, so that the negation of unknown does not become true.
    """

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self.inputs = inputs

    def of(self, node: Node) -> Logic:
        """Return an expression that is true exactly if the condition is certainly true."""
        return self._true(node)

    def _true(self, node: Node) -> Logic:
        match node:
            case And():
                return {"and": [self._true(part) for part in node.parts]}
            case Or():
                return {"or": [self._true(part) for part in node.parts]}
            case Not():
                return self._false(node.part)
            case Has():
                return {"!==": [self._var(node.ref), None]}
            case Compare():
                return self._compared(node, node.op)
            case In():
                return self._known([node.operand], self._inside(node))
            case Test():
                return self._known([node.ref], self._tested(node))
            case Truth():
                return {"===": [self._value(node.operand), True]}

    def _false(self, node: Node) -> Logic:
        match node:
            case And():
                return {"or": [self._false(part) for part in node.parts]}
            case Or():
                return {"and": [self._false(part) for part in node.parts]}
            case Not():
                return self._true(node.part)
            case Has():
                return {"===": [self._var(node.ref), None]}
            case Compare():
                return self._compared(node, _NEGATED[node.op])
            case In():
                return self._known([node.operand], {"!": [self._inside(node)]})
            case Test():
                return self._known([node.ref], {"!": [self._tested(node)]})
            case Truth():
                return {"===": [self._value(node.operand), False]}

    def _compared(self, node: Compare, op: str) -> Logic:
        return self._known(
            [node.left, node.right], {_STRICT.get(op, op): [self._value(node.left), self._value(node.right)]}
        )

    def _inside(self, node: In) -> Logic:
        return {"in": [self._value(node.operand), [item.value for item in node.items]]}

    def _tested(self, node: Test) -> Logic:
        if node.method == "contains":
            return {"in": [node.text, self._var(node.ref)]}
        return {_METHODS[node.method]: [self._var(node.ref), node.text]}

    def _known(self, operands: Iterable[Operand], logic: Logic) -> Logic:
        """Return `logic`, false if an input is missing: JsonLogic treats a missing one as 0 or an empty string."""
        present = [{"!==": [self._var(one), None]} for one in operands if isinstance(one, Ref)]
        return {"and": [*present, logic]} if present else logic

    def _value(self, operand: Operand) -> Logic:
        return operand.value if isinstance(operand, Lit) else self._var(operand)

    def _var(self, ref: Ref) -> Logic:
        if ref.size:
            raise _Impossible(f"the number of characters, size({ref.name})")
        if ref.name.startswith(_ATTRIBUTE):
            return self._with_default(ref.name, ref.name.removeprefix(_ATTRIBUTE))
        if ref.name.startswith(_REQUEST):
            return self._with_default(ref.name, ref.name.removeprefix(_REQUEST))
        raise _Impossible(f"the input {ref.name}, which comes from the routers' own outcomes")

    def _with_default(self, name: str, key: str) -> Logic:
        known = self.inputs.get(name)
        return {"var": key if known is None or known.default is None else [key, known.default]}
