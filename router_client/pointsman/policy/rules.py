"""Check the rules' conditions, and whether each rule can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pointsman.conditions import FIRST_STAGE, SECOND_STAGE, Finding, declared, examine
from pointsman.conditions.nodes import And, Compare, In, Lit, Node, Not, Or, Ref, Truth
from pointsman.policy.document import as_mapping
from pointsman.policy.shape import Reporter

__all__ = ["Rule", "check_conditions", "read_rules"]

# A document has at most 50 rules; with more it is refused anyway, and comparing all pairs would take too long.
_COMPARED = 50
_TRUE = Truth(Lit(True, 0, "bool"), 0)


@dataclass(frozen=True, slots=True)
class Rule:
    """The well-formed parts of a rule. `node` is None if its condition cannot be parsed."""

    path: str
    id: str
    use: str
    node: Node | None
    findings: list[Finding]


def read_rules(data: Mapping[str, Any]) -> list[Rule]:
    """Return the rules that have a condition, in order."""
    inputs = declared(data.get("inputs"), FIRST_STAGE)
    entries = data.get("rules")
    rules: list[Rule] = []
    for place, entry in enumerate(entries if isinstance(entries, list) else []):
        when = as_mapping(entry).get("when")
        if isinstance(when, str):
            node, findings = examine(when, inputs)
            rules.append(Rule(f"rules[{place}]", str(entry.get("id")), str(entry.get("use")), node, findings))
    return rules


def check_conditions(data: Mapping[str, Any], rules: list[Rule], report: Reporter) -> None:
    """Report problems in each condition, and rules that an earlier rule makes unreachable."""
    for rule in rules:
        for finding in rule.findings:
            _pass_on(f"{rule.path}.when", finding, report)
    when = as_mapping(data.get("escalate")).get("when")
    if isinstance(when, str):
        for finding in examine(when, declared(data.get("inputs"), SECOND_STAGE))[1]:
            _pass_on("escalate.when", finding, report)
    shapes = _Shapes()
    coded = [(rule, shapes.code(rule.node)) for rule in rules[:_COMPARED] if rule.node is not None]
    for place, (rule, code) in enumerate(coded):
        earlier = next((other for other, before in coded[:place] if shapes.implies(code, before)), None)
        if earlier is not None:
            text = (
                f'unreachable: every request that matches it already matches the earlier rule "{earlier.id}"'
            )
            report(f"{rule.path}.when", "unreachable_rule", text)
    _check_critical(data, rules, report)


def _pass_on(path: str, finding: Finding, report: Reporter) -> None:
    report(path, finding.code, finding.message, finding.at, finding.severity, finding.near)


def _check_critical(data: Mapping[str, Any], rules: list[Rule], report: Reporter) -> None:
    """Warn about critical work on the weakest model, which is rarely intended."""
    rank = data.get("rank")
    ranked = rank if isinstance(rank, list) else list(as_mapping(data.get("models")))
    for rule in rules:
        if rule.node is not None and len(ranked) > 1 and rule.use == ranked[0] and _names_critical(rule.node):
            text = f'sends critical requests to "{rule.use}", the weakest model'
            report(f"{rule.path}.use", "critical_to_weakest", text, 0, "warning")


def _names_critical(node: Node) -> bool:
    """Return whether a condition selects requests of critical priority by name."""
    priority, critical = Ref("request.priority", 0), Lit("critical", 0, "string")
    if isinstance(node, Compare):
        return node.op == "==" and {priority, critical} == {node.left, node.right}
    if isinstance(node, In):
        return node.operand == priority and critical in node.items
    return not isinstance(node, Not) and any(_names_critical(part) for part in getattr(node, "parts", ()))


class _Shapes:
    """Numbers for conditions: equal conditions have the same number, whatever the order of their parts.

    Implication between conditions is judged by shape alone, and with a limited number of steps: the general question
    is exponential, and a document must not be able to cause that.
    """

    def __init__(self, steps: int = 20_000) -> None:
        self.steps = steps
        self._codes: dict[object, int] = {}
        self._forms: list[tuple[type, frozenset[int]]] = []

    def code(self, node: Node) -> int:
        """Return the number of a condition."""
        if isinstance(node, And | Or):
            parts = frozenset(self.code(part) for part in node.parts)
            return self._number((type(node), parts), parts, type(node))
        if isinstance(node, Not):
            part = self.code(node.part)
            return self._number((Not, part), frozenset([part]), Not)
        return self._number(node, frozenset(), type(node))

    def _number(self, key: object, parts: frozenset[int], kind: type) -> int:
        if key not in self._codes:
            self._codes[key] = len(self._forms)
            self._forms.append((kind, parts))
        return self._codes[key]

    def implies(self, one: int, other: int) -> bool:
        """Return whether `one` certainly implies `other`; False if that would take too long to determine."""
        if one == other or other == self._codes.get(_TRUE):
            return True
        self.steps -= 1
        if self.steps < 0:
            return False
        (kind, parts), (other_kind, other_parts) = self._forms[one], self._forms[other]
        if kind is Or:
            return all(self.implies(part, other) for part in parts)
        if other_kind is And:
            return all(self.implies(one, part) for part in other_parts)
        if (kind is And and other in parts) or (other_kind is Or and one in other_parts):
            return True
        if kind is And and any(self.implies(part, other) for part in parts):
            return True
        return other_kind is Or and any(self.implies(one, part) for part in other_parts)
