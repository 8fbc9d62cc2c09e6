"""Format a policy document as people write it: YAML in the format's own key order."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from pointsman.policy.yaml_text import needs_quotes

# Canonical JSON sorts its keys. People read a policy from its purpose to its emergency settings.
KEYS = (
    "format", "workload", "models", "inputs", "rules", "id", "max", "to", "attempts", "on", "when", "use",
    "note", "type", "default", "escalate", "missing_confidence", "latch", "fallback", "retry", "timeouts",
    "budget", "batch", "guard",
)  # fmt: skip


class _Dumper(yaml.SafeDumper):
    """Writes lists of scalars and small maps on one line, and everything else as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the format does not allow anchors


def _mapping(dumper: _Dumper, data: Mapping[str, Any]) -> yaml.Node:
    small = len(data) <= 3 and "id" not in data and "when" not in data and len(str(data)) < 90
    flat = small and all(not isinstance(value, Mapping | list) for value in data.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", list(data.items()), flow_style=flat)


def _sequence(dumper: _Dumper, data: Sequence[Any]) -> yaml.Node:
    flat = all(not isinstance(value, Mapping | list) for value in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


def _text(dumper: _Dumper, data: str) -> yaml.Node:
    style = '"' if needs_quotes(data) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


# The format uses YAML 1.2, where `on` is a plain word. PyYAML would quote it because of YAML 1.1.
_Dumper.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:bool" or first in "tfTF"]
    for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _sequence)
_Dumper.add_representer(str, _text)


def as_yaml(document: Mapping[str, Any]) -> str:
    """Return the document as YAML that parses back to the same content. The order of `models` is their rank."""
    rank = document.get("rank", [])
    models = dict(sorted(document["models"].items(), key=lambda item: rank.index(item[0])))
    written = _ordered({name: value for name, value in document.items() if name != "rank"} | {"models": {}})
    written["models"] = {alias: _ordered(model) for alias, model in models.items()}
    return yaml.dump(written, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        known = [key for key in KEYS if key in value]
        return {key: _ordered(value[key]) for key in [*known, *(key for key in value if key not in KEYS)]}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


# The editor's initial text for a workload without a version: two stages, the cheap model first.
FIRST_POLICY = """\
format: 1
workload: {workload}
models:                 # weakest first; the names are local to this policy
  small:
    model: {weak}
  large:
    model: {strong}
rules:                  # first match wins
  - id: heavy
    when: request.prompt_tokens > 8000
    use: large
default: small
escalate:               # the answer was not good enough
  max: 1
  to: large
  on: [error, timeout, invalid_output]
  when: response.confidence < 0.7
fallback: [large, small]
"""
EXAMPLE_MODELS = ("openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5")  # a weak and a strong one


def first_policy(workload: str, weak: str, strong: str) -> str:
    """Return a policy to start from. Both models should be in the catalogue: others are refused."""
    return FIRST_POLICY.format(workload=_written(workload), weak=_written(weak), strong=_written(strong))


def _written(name: str) -> str:
    """Return a name as YAML, in quotes if it could be taken for a number, a word or a key."""
    return yaml.dump([name], Dumper=_Dumper, width=10_000, allow_unicode=True).strip()[1:-1]
