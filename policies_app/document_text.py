"""A document as people write and read it: YAML in the format's own order, and two of them side by side."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from controlplane.core.actors import Actor
from controlplane.core.errors import PolicyRefused
from pointsman.errors import PolicyInvalid
from pointsman.policy import Problem, parse
from policies_app import actions
from policies_app.catalogue.validation import problems_of
from policies_app.models import PolicyVersion, Workload

# Canonical JSON sorts its keys; people read a policy from what it is for to what it does in an emergency.
_ORDER = (
    "format", "workload", "models", "inputs", "rules", "id", "max", "to", "attempts", "on", "when", "use",
    "note", "type", "default", "escalate", "missing_confidence", "latch", "fallback", "retry", "timeouts",
    "budget", "batch", "guard",
)  # fmt: skip
_CONTEXT = 3  # unchanged lines shown around a change


class _Dumper(yaml.SafeDumper):
    """Lists of words and small maps on one line, everything else as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True  # the format refuses anchors


def _mapping(dumper: _Dumper, data: Mapping[str, Any]) -> yaml.Node:
    small = len(data) <= 3 and "id" not in data and "when" not in data and len(str(data)) < 90
    flat = small and all(not isinstance(value, Mapping | list) for value in data.values())
    return dumper.represent_mapping("tag:yaml.org,2002:map", list(data.items()), flow_style=flat)


def _sequence(dumper: _Dumper, data: Sequence[Any]) -> yaml.Node:
    flat = all(not isinstance(value, Mapping | list) for value in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flat)


# The format reads YAML 1.2, where `on` is a word: PyYAML would quote it for YAML 1.1's sake.
_Dumper.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:bool" or first in "tfTF"]
    for first, found in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
_Dumper.add_representer(dict, _mapping)
_Dumper.add_representer(list, _sequence)


def as_yaml(document: Mapping[str, Any]) -> str:
    """The document as YAML that parses back to the same content. The order of `models` says their rank."""
    rank = document.get("rank", [])
    models = dict(sorted(document["models"].items(), key=lambda item: rank.index(item[0])))
    written = _ordered({name: value for name, value in document.items() if name != "rank"} | {"models": {}})
    written["models"] = {alias: _ordered(model) for alias, model in models.items()}
    return yaml.dump(written, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        known = [key for key in _ORDER if key in value]
        return {key: _ordered(value[key]) for key in [*known, *(key for key in value if key not in _ORDER)]}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


# --- from text ----------------------------------------------------------------------------------------

# What the editor starts with for a workload without a version: two stages, cheap first.
FIRST_POLICY = """\
format: 1
workload: {workload}
models:                 # weakest first; the names are this policy's own
  small:
    model: openai/gpt-4o-mini
  large:
    model: anthropic/claude-sonnet-4-5
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


def add_version(workload: Workload, text: str, *, note: str, actor: Actor) -> PolicyVersion:
    """Keep the document in `text` as the next version. Raises `PolicyRefused` with lines and columns."""
    try:
        document = parse(text)
    except PolicyInvalid as error:
        problems = [problem.as_dict() for problem in error.problems]
        raise PolicyRefused("The text is not a document; nothing was saved.", problems) from None
    return actions.add_version(workload, document.data, actor=actor, note=note, locate=document.locate)


def problems_of_text(text: str, workload: Workload) -> list[Problem]:
    """Every problem of the document in `text`, warnings included."""
    try:
        document = parse(text)
    except PolicyInvalid as error:
        return list(error.problems)
    return problems_of(document.data, workload, locate=document.locate)


# --- side by side -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """One line of one side: its number (from 1), and its text around the part that differs."""

    number: int
    start: str
    changed: str = ""
    end: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of both, or of one side. `hidden` > 0: that many equal lines are left out here."""

    kind: Literal["same", "changed", "removed", "added", "gap"]
    left: Side | None = None
    right: Side | None = None
    hidden: int = 0


def side_by_side(before: str, after: str) -> list[Row]:
    """Both texts, line by line, with equal stretches shortened to a few lines around each change."""
    left, right = before.splitlines(), after.splitlines()
    rows: list[Row] = []
    blocks = difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    for index, (tag, i1, i2, j1, j2) in enumerate(blocks):
        if tag == "equal":
            equal = [_same(i + 1, j + 1, left[i]) for i, j in zip(range(i1, i2), range(j1, j2), strict=True)]
            rows += _shortened(equal, first=index == 0, last=index == len(blocks) - 1)
        else:
            rows += _changed(left, right, i1, i2, j1, j2)
    return rows


def _same(left: int, right: int, text: str) -> Row:
    return Row("same", Side(left, text), Side(right, text))


def _shortened(rows: list[Row], *, first: bool, last: bool) -> list[Row]:
    head = 0 if first else _CONTEXT
    tail = 0 if last else _CONTEXT
    hidden = len(rows) - head - tail
    if hidden < 2:
        return rows
    return [*rows[:head], Row("gap", hidden=hidden), *rows[len(rows) - tail :]]


def _changed(left: list[str], right: list[str], i1: int, i2: int, j1: int, j2: int) -> Iterator[Row]:
    both = min(i2 - i1, j2 - j1)
    for offset in range(both):
        was, now = left[i1 + offset], right[j1 + offset]
        start = len(os.path.commonprefix([was, now]))
        end = len(os.path.commonprefix([was[start:][::-1], now[start:][::-1]]))
        left_side = _marked(i1 + offset + 1, was, start, end)
        yield Row("changed", left_side, _marked(j1 + offset + 1, now, start, end))
    for i in range(i1 + both, i2):
        yield Row("removed", left=Side(i + 1, left[i]))
    for j in range(j1 + both, j2):
        yield Row("added", right=Side(j + 1, right[j]))


def _marked(number: int, text: str, start: int, end: int) -> Side:
    stop = len(text) - end
    return Side(number, text[:start], text[start:stop], text[stop:])
