"""Checks the rules' conditions, and whether each rule can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pointsman.conditions import FIRST_STAGE, SECOND_STAGE, Finding, declared, examine
from pointsman.conditions.nodes import And, Compare, In, Lit, Node, Not, Or, Ref, Truth
from pointsman.policy.document import as_mapping
from pointsman.policy.references import Reporter

__all__ = ["Rule", "check_conditions", "implies", "read_rules"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as far as it is well-formed. `node` is None when its condition cannot be read."""

    path: str
    id: str
    use: str
    node: Node | None
    findings: list[Finding]


def read_rules(data: Mapping[str, Any]) -> list[Rule]:
    """The rules that have a condition, in order."""
    inputs = declared(data.get("inputs"), FIRST_STAGE)
    entries = data.get("rules")
    rules: list[Rule] = []
    # A list beyond its limit is a problem already; reading no further keeps a hostile one cheap.
    for place, entry in enumerate(entries[:50] if isinstance(entries, list) else []):
        when = as_mapping(entry).get("when")
        if isinstance(when, str):
            node, findings = examine(when, inputs)
            rules.append(Rule(f"rules[{place}]", str(entry.get("id")), str(entry.get("use")), node, findings))
    return rules


def check_conditions(data: Mapping[str, Any], rules: list[Rule], report: Reporter) -> None:
    """Report what is wrong in each condition, and rules that an earlier one leaves nothing."""
    for rule in rules:
        for finding in rule.findings:
            report(f"{rule.path}.when", finding.code, finding.message, finding.at, finding.severity)
    when = as_mapping(data.get("escalate")).get("when")
    if isinstance(when, str):
        for finding in examine(when, declared(data.get("inputs"), SECOND_STAGE))[1]:
            report("escalate.when", finding.code, finding.message, finding.at, finding.severity)
    for place, rule in enumerate(rules):
        earlier = next((other for other in rules[:place] if _covers(other.node, rule.node)), None)
        if earlier is not None:
            text = f'never reached: whatever matches it matches the earlier rule "{earlier.id}"'
            report(f"{rule.path}.when", "unreachable_rule", text)
    _check_critical(data, rules, report)


def _check_critical(data: Mapping[str, Any], rules: list[Rule], report: Reporter) -> None:
    """Critical work on the weakest model may be meant, but seldom is."""
    ranked = list(data.get("rank") or as_mapping(data.get("models")))
    for rule in rules:
        if rule.node is not None and len(ranked) > 1 and rule.use == ranked[0] and _names_critical(rule.node):
            text = f'sends critical requests to "{rule.use}", the weakest model'
            report(f"{rule.path}.use", "critical_to_weakest", text, 0, "warning")


def _names_critical(node: Node) -> bool:
    """Whether a condition picks requests of critical priority out by name."""
    priority, critical = Ref("request.priority", 0), Lit("critical", 0, "string")
    if isinstance(node, Compare):
        return node.op == "==" and {priority, critical} == {node.left, node.right}
    if isinstance(node, In):
        return node.operand == priority and critical in node.items
    return not isinstance(node, Not) and any(_names_critical(part) for part in getattr(node, "parts", ()))


def _covers(earlier: Node | None, later: Node | None) -> bool:
    return earlier is not None and later is not None and implies(later, earlier)


def implies(node: Node, other: Node) -> bool:
    """Whether `other` certainly holds wherever `node` does, as far as their shape shows it."""
    if node == other or (
        isinstance(other, Truth) and isinstance(other.operand, Lit) and other.operand.value is True
    ):
        return True
    if isinstance(node, Or):
        return all(implies(part, other) for part in node.parts)
    if isinstance(other, And):
        return all(implies(node, part) for part in other.parts)
    if isinstance(node, And) and any(implies(part, other) for part in node.parts):
        return True
    return isinstance(other, Or) and any(implies(node, part) for part in other.parts)
