"""Check a document against the model catalogue: existence, context windows, prices and quality of models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pointsman.conditions import FIRST_STAGE
from pointsman.conditions.nodes import Node, Ref
from pointsman.conditions.ranges import Range, bounds, domain
from pointsman.policy.document import as_mapping
from pointsman.policy.references import uses
from pointsman.policy.rules import Rule
from pointsman.policy.shape import Reporter

__all__ = ["CatalogueModel", "check_catalogue"]

_TOKENS = "request.prompt_tokens"
_MTOK = 1_000_000
# The (input, output) tokens of the call to compare a budget with if no rule limits the length of requests.
TYPICAL_CALL = (1_000, 250)


@dataclass(frozen=True, slots=True)
class CatalogueModel:
    """One model of the catalogue. Prices are nano-US-dollars per million tokens, None if unknown;
    the window is in tokens.

    quality is a measurement on any scale where more is better, or None.
    """

    name: str
    input_nusd_per_mtok: int | None
    output_nusd_per_mtok: int | None
    context_window: int
    enabled: bool
    quality: float | None = None

    def price(self, tokens_in: float, tokens_out: float) -> float | None:
        """Return the cost of a call in nano-US-dollars; None if it is unknown."""
        if self.input_nusd_per_mtok is None or self.output_nusd_per_mtok is None:
            return None
        return (tokens_in * self.input_nusd_per_mtok + tokens_out * self.output_nusd_per_mtok) / _MTOK


def check_catalogue(
    data: Mapping[str, Any], rules: list[Rule], catalogue: Mapping[str, CatalogueModel], report: Reporter
) -> None:
    """Report models that do not exist, and rules that the models cannot serve."""
    known: dict[str, CatalogueModel] = {}
    for alias, entry in as_mapping(data.get("models")).items():
        name, path = as_mapping(entry).get("model"), f"models.{alias}.model"
        if not isinstance(name, str):
            continue
        model = catalogue.get(name)
        if model is None:
            report(path, "not_in_catalogue", f'the catalogue has no model "{name}"', near=(name, catalogue))
        elif not model.enabled:
            report(
                path, "model_disabled", f'"{name}" is disabled in the catalogue; enable it or choose another'
            )
        else:
            known[alias] = model
    budget = as_mapping(data.get("budget")).get("max_cost_per_task_nusd")
    for rule in rules:
        if rule.use in known and rule.node is not None:
            _check_window(rule, rule.node, known[rule.use], report)
    _check_budget(data, rules, known, budget, report)
    _check_strength(data, known, report)


def _tokens(node: Node | None) -> Range:
    whole = domain(Ref(_TOKENS, 0), FIRST_STAGE[_TOKENS])
    found = whole if node is None else bounds(node, _TOKENS, whole)
    return whole if found.empty else found  # a condition that is never true is reported elsewhere


def _check_window(rule: Rule, node: Node, model: CatalogueModel, report: Reporter) -> None:
    tokens, window, path = _tokens(node), model.context_window, f"{rule.path}.when"
    if tokens.low >= window:
        text = (
            f"matches only prompts of {tokens.low:,.0f} tokens or more, "
            f"but the context window of {model.name} is {window:,}"
        )
        report(path, "context_too_small", text)
    elif window < tokens.high < float("inf"):
        text = (
            f"allows prompts of up to {tokens.high:,.0f} tokens, "
            f"but the context window of {model.name} is {window:,}"
        )
        report(path, "context_too_small", text, 0, "warning")


def _check_budget(
    data: Mapping[str, Any],
    rules: list[Rule],
    known: Mapping[str, CatalogueModel],
    budget: Any,
    report: Reporter,
) -> None:
    """Report a budget below some rule's smallest call as an error, and below a typical call as a warning."""
    if not isinstance(budget, int) or isinstance(budget, bool):
        return
    path = "budget.max_cost_per_task_nusd"
    least = {alias: 1.0 for _, alias in uses(data)}
    for rule in rules:
        least[rule.use] = max(least.get(rule.use, 1.0), _tokens(rule.node).low)
    for alias, model in known.items():
        if alias not in least:
            continue
        smallest = model.price(least[alias], 1)
        typical = max(least[alias], TYPICAL_CALL[0])
        usual = model.price(typical, TYPICAL_CALL[1])
        if smallest is None or usual is None:
            text = f"{model.name} has no price in the catalogue, so its calls cannot be checked against the budget"
            report(path, "no_price", text, 0, "warning")
            continue
        if budget < smallest:
            text = (
                f"less than one call to {alias} costs "
                f"({smallest:,.0f} nano-dollars at {least[alias]:,.0f} tokens)"
            )
            report(path, "budget_too_small", text)
        if smallest <= budget < usual:
            text = (
                f"less than a typical call to {alias} costs "
                f"({usual:,.0f} nano-dollars at {typical:,.0f} input tokens)"
            )
            report(path, "budget_too_small", text, 0, "warning")


def _check_strength(data: Mapping[str, Any], known: Mapping[str, CatalogueModel], report: Reporter) -> None:
    """Check escalations by rank and by measured quality, not by price."""
    default, to = str(data.get("default")), as_mapping(data.get("escalate")).get("to")
    if isinstance(to, str) and to in known and default in known:
        before, after = known[default].quality, known[to].quality
        if before is not None and after is not None and after < before:
            text = (
                f"escalates from {default} (quality {before:g}) to {to} (quality {after:g}), which is worse"
            )
            report("escalate.to", "escalates_down", text, 0, "warning")
