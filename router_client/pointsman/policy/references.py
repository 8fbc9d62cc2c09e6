"""Check that names are defined, and that fallback and escalation have an effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman.policy.document import KEY, as_mapping
from pointsman.policy.schema import RESERVED_RULES
from pointsman.policy.shape import Reporter
from pointsman.problems import join

__all__ = ["check_references", "uses"]

# Words reserved by CEL.
_RESERVED_INPUTS = frozenset(
    [
        "as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in", "let",
        "loop", "namespace", "null", "package", "return", "true", "var", "void", "while",
    ]
)  # fmt: skip


def uses(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (path, alias) for every reference to a model. Malformed references are skipped."""
    places: list[tuple[str, Any]] = [("default", data.get("default"))]
    for kind, owner in (("rules", "use"), ("fallback", "")):
        entries = data.get(kind)
        for place, entry in enumerate(entries if isinstance(entries, list) else []):
            path = join(kind, place)
            places.append((join(path, owner), as_mapping(entry).get(owner)) if owner else (path, entry))
    places.append(("escalate.to", as_mapping(data.get("escalate")).get("to")))
    guard = as_mapping(data.get("guard"))
    places += [(f"guard.{name}", guard.get(name)) for name in ("on_evaluation_error", "on_unknown_model")]
    yield from ((path, alias) for path, alias in places if isinstance(alias, str))


def check_references(data: Mapping[str, Any], report: Reporter) -> None:
    """Report undefined names, and second choices that are the same as the first."""
    models = as_mapping(data.get("models"))
    named = dict(uses(data))
    for path, alias in named.items():
        if models and alias not in models:
            report(path, "unknown_model", f'no model "{alias}" under models', near=(alias, models))
    for alias in models:
        if alias not in named.values():
            text = f'"{alias}" is never used; remove it or use it'
            report(join("models", alias), "unused_model", text, KEY, "warning")
    _check_rank(data, models, report)
    _check_ids(data, report)
    _check_inputs(data, report)
    _check_second_choices(data, models, report)


def _check_rank(data: Mapping[str, Any], models: Mapping[str, Any], report: Reporter) -> None:
    rank = data.get("rank")
    if isinstance(rank, list) and all(isinstance(alias, str) for alias in rank) and set(rank) != set(models):
        report("rank", "wrong_rank", "rank must list exactly the names under models, weakest first")


def _check_ids(data: Mapping[str, Any], report: Reporter) -> None:
    rules = data.get("rules")
    seen: set[str] = set()
    for place, rule in enumerate(rules if isinstance(rules, list) else []):
        name, path = as_mapping(rule).get("id"), f"rules[{place}].id"
        if not isinstance(name, str):
            continue
        if name in RESERVED_RULES:
            report(
                path,
                "reserved_id",
                f'"{name}" is reserved for decisions made without a rule; choose another id',
            )
        if name in seen:
            report(path, "duplicate_id", f'an earlier rule already has the id "{name}"')
        seen.add(name)


def _check_inputs(data: Mapping[str, Any], report: Reporter) -> None:
    for name, entry in as_mapping(data.get("inputs")).items():
        path = join("inputs", name)
        if name in _RESERVED_INPUTS:
            report(path, "bad_name", f'"{name}" is a reserved word of CEL; choose another name', KEY)
        kind, default = as_mapping(entry).get("type"), as_mapping(entry).get("default")
        if default is not None and isinstance(kind, str) and not _fits(default, kind):
            report(join(path, "default"), "wrong_type", f"the default must have the input's type, {kind}")


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if kind == "int":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, str) if kind == "string" else isinstance(value, int | float)


def _check_second_choices(data: Mapping[str, Any], models: Mapping[str, Any], report: Reporter) -> None:
    default, fallback = data.get("default"), data.get("fallback")
    escalate, timeouts = as_mapping(data.get("escalate")), as_mapping(data.get("timeouts"))
    if isinstance(fallback, list) and fallback and all(_same(alias, default, models) for alias in fallback):
        report(
            "fallback",
            "fallback_is_default",
            "fallback needs at least one model other than the default; otherwise it has no effect",
        )
    if "to" in escalate and _same(escalate["to"], default, models):
        report(
            "escalate.to",
            "escalates_to_default",
            "escalate.to is the default; choose a stronger model",
        )
    ranked = data.get("rank") if isinstance(data.get("rank"), list) else list(models)
    if _ranks_above(default, escalate.get("to"), ranked):
        text = (
            "escalate.to ranks below the default, so the default never escalates; list models weakest first"
        )
        report("escalate.to", "escalates_down", text, 0, "warning")
    if escalate and escalate.get("max", 1) and not escalate.get("on") and not escalate.get("when"):
        report("escalate", "never_escalates", "without `on` or `when`, nothing ever escalates", 0, "warning")
    attempt, total = timeouts.get("attempt_ms"), timeouts.get("total_ms")
    if isinstance(attempt, int) and isinstance(total, int) and attempt > total:
        report(
            "timeouts.attempt_ms",
            "timeouts_cross",
            f"attempt_ms must not exceed total_ms, the limit for the whole task ({total} ms)",
        )


def _ranks_above(alias: Any, other: Any, ranked: Any) -> bool:
    return alias in ranked and other in ranked and bool(ranked.index(alias) > ranked.index(other))


def _same(alias: Any, other: Any, models: Mapping[str, Any]) -> bool:
    """Return whether two aliases are the same model, even under two names."""
    if alias == other:
        return True
    if not isinstance(alias, str) or not isinstance(other, str):
        return False
    one, two = as_mapping(models.get(alias)), as_mapping(models.get(other))
    return bool(one) and one == two
