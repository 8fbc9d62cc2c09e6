"""Which choices of a policy are possible for the tasks of one route. Pure."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pointsman.conditions.nodes import Node
from pointsman.conditions.parser import parse_condition
from rollout_app.blast_radius.knowledge import ABSENT, FALSE, TRUE, Facts, possible

DEFAULT = "default"


class Choice(NamedTuple):
    """What a policy chooses first: by which rule, by its own name of the model."""

    rule: str
    alias: str


def choices(document: Mapping[str, Any], facts: Facts) -> list[Choice]:
    """Every choice that is possible for such tasks, in the order of the rules; one: it is certain."""
    found: list[Choice] = []
    for rule in document.get("rules", ()):
        answers = possible(_tree(rule["when"]), facts)
        if answers & TRUE:
            found.append(Choice(rule["id"], rule["use"]))
        if not answers & (FALSE | ABSENT):
            return found
    return [*found, Choice(DEFAULT, document["default"])]


def everything(document: Mapping[str, Any]) -> list[Choice]:
    """Every choice of the policy: of a task of which nothing is known."""
    return choices(document, Facts())


def facts_of(
    document: Mapping[str, Any], rule: str, endpoint: str, *, asked: Sequence[Mapping[str, Any]] = ()
) -> Facts | None:
    """What is known of a task of this endpoint that `rule` of the document decided; None: it has no such rule.

    `asked`: the documents that are asked about. Where one of them declares other inputs, a condition that reads the
    same may mean something else, and only the endpoint is known.
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
    """Of a version's condition, which was checked when the version was saved."""
    return parse_condition(text)
