"""Differences between two documents for reviewers: by path, with rules matched by id."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One changed place. `path` is a JSON path with rules identified by id: `rules[heavy].when`."""

    path: str
    kind: Literal["added", "removed", "changed", "moved"]
    before: Any = None
    after: Any = None

    def as_dict(self) -> dict[str, Any]:
        return {"path": self.path, "kind": self.kind, "before": self.before, "after": self.after}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """Return all differences, in the documents' order.

    Rules are matched by id, because the first matching rule wins. A rule that only changed its position is `moved`,
    from one position to another (1-based), instead of a rewrite of every rule below it.
    """
    return list(_compare("", before, after))


def _compare(path: str, before: Any, after: Any) -> Iterator[Difference]:
    if before is _ABSENT:
        yield Difference(path, "added", after=after)
    elif after is _ABSENT:
        yield Difference(path, "removed", before=before)
    elif path == "rules" and _have_ids(before) and _have_ids(after):
        yield from _compare_rules(before, after)
    elif isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            yield from _compare(inner, before.get(key, _ABSENT), after.get(key, _ABSENT))
    elif before != after or type(before) is not type(after):
        yield Difference(path, "changed", before=before, after=after)


def _have_ids(rules: Any) -> bool:
    return isinstance(rules, list) and all(isinstance(rule, Mapping) and "id" in rule for rule in rules)


def _compare_rules(before: list[Any], after: list[Any]) -> Iterator[Difference]:
    old = {rule["id"]: rule for rule in before}
    new = {rule["id"]: rule for rule in after}
    for rule_id in [*old, *(rule_id for rule_id in new if rule_id not in old)]:
        path = f"rules[{rule_id}]"
        yield from _compare(path, old.get(rule_id, _ABSENT), new.get(rule_id, _ABSENT))
    shared_old = [rule_id for rule_id in old if rule_id in new]
    shared_new = [rule_id for rule_id in new if rule_id in old]
    for rule_id in shared_new:
        was, now = shared_old.index(rule_id) + 1, shared_new.index(rule_id) + 1
        if was != now:
            yield Difference(f"rules[{rule_id}]", "moved", before=was, after=now)
