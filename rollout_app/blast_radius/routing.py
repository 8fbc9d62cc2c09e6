"""Find the choices of a policy that are possible for the tasks of one route. Pure."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pointsman.conditions.nodes import Node
from pointsman.conditions.parser import parse_condition
from rollout_app.blast_radius.knowledge import ABSENT, FALSE, TRUE, Facts, possible

DEFAULT = "default"


class Choice(NamedTuple):
    """A policy's first choice: the rule, and the alias of the model."""

    rule: str
    alias: str


def choices(document: Mapping[str, Any], facts: Facts) -> list[Choice]:
    """Return every choice that is possible for such tasks, in the order of the rules. With one choice it is certain."""
    found: list[Choice] = []
    for rule in document.get("rules", ()):
        answers = possible(_tree(rule["when"]), facts)
        if answers & TRUE:
            found.append(Choice(rule["id"], rule["use"]))
        if not answers & (FALSE | ABSENT):
            return found
    return [*found, Choice(DEFAULT, document["default"])]


def everything(document: Mapping[str, Any]) -> list[Choice]:
    """Return every choice of the policy, for a task about which nothing is known."""
    return choices(document, Facts())


def facts_of(
    document: Mapping[str, Any], rule: str, endpoint: str, *, asked: Sequence[Mapping[str, Any]] = ()
) -> Facts | None:
    """Return what follows for a task of this endpoint that `rule` of the document decided; None if there is no such
    rule.

    `asked`: the documents to compare. If one of them declares other inputs, the same condition may mean something
    else, and only the endpoint is known.
    """
    facts = Facts()
    facts.of_endpoint(endpoint)
    rules = document.get("rules", ())
    if rule != DEFAULT and all(each["id"] != rule for each in rules):
        return None
    if any(other.get("inputs", {}) != document.get("inputs", {}) for other in asked):
        return facts
    for each in rules:
        tree = _tree(each["when"])
        if each["id"] == rule:
            facts.learn(tree)
            break
        facts.learn_not(tree)
    return facts


@lru_cache(maxsize=4_096)
def _tree(text: str) -> Node:
    """Parse a version's condition, which was checked when the version was saved."""
    return parse_condition(text)
