"""Input from attackers or accidents: always a problem, never a crash, never slow."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from pointsman.conditions import FIRST_STAGE, examine
from pointsman.errors import PolicyInvalid
from pointsman.policy import parse, validate
from tests.client.policies import two_stage

MOST_CALLS = 1_000_000  # twice what the largest set of mistakes needs, and thirty times everything else
T = TypeVar("T")

CONDITIONS = {
    "16,000 terms": " || ".join(["true"] * 16_000),
    "100,000 parentheses": "(" * 100_000,
    "1,990 parentheses": "(" * 1_990,
    "1,990 negations": "!" * 1_990 + "true",
    "1,990 dots": "a" + ".a" * 990,
    "an endless list": "request.turns in [" + "1," * 900,
    "an open text": '"' + "a" * 1_900,
    "backslashes": '"' + "\\" * 1_901,
    "a lone surrogate": '"\ud800"',
    "a lone surrogate outside": "\udfff",
    "an escaped surrogate": '"\\ud800"',
    "1,990 digits": "request.turns > " + "9" * 1_980,
    "a huge double": "request.confidence > 1e999999",
    "NaN": "request.confidence > NaN",
    "NUL": "request.turns > \0",
    "nothing": "",
    "blanks": " " * 1_999,
    "an escape beyond Unicode": '"\\U00110000"',
    "65 leaves": "true && " * 64 + "true",
}


def briefly(action: Callable[[], T]) -> T:
    """Run the action with at most `MOST_CALLS` calls: the same limit on every machine, busy or not."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        result = action()
    finally:
        sys.setprofile(before)
    assert calls < MOST_CALLS
    return result


@pytest.mark.parametrize("text", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_it_refuses_a_hostile_condition(text: str) -> None:
    _, findings = briefly(lambda: examine(text, FIRST_STAGE))
    assert any(finding.severity == "error" for finding in findings)


@pytest.mark.parametrize("text", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_it_refuses_a_document_with_a_hostile_condition(text: str) -> None:
    document = two_stage(rules=[{"id": "a", "when": text, "use": "large"}])
    problems = briefly(lambda: validate(document))
    assert any(problem.severity == "error" for problem in problems)


def test_it_checks_the_largest_conditions_quickly() -> None:
    rule = " || ".join(f"request.prompt_tokens == {10_000 + n}" for n in range(55))
    assert briefly(lambda: examine(rule, FIRST_STAGE))[1] == []


DOCUMENTS: dict[str, Any] = {
    "NaN": {"format": float("nan")},
    "a huge int": two_stage(format=10**5_000),
    "a surrogate": two_stage(workload="\ud800"),
    "a surrogate as a name": {"\ud800": 1},
    "NUL": two_stage(workload="a\0"),
    "a number as a name": {1: 2},
    "bytes": {"a": b"x"},
    "a set": {"a": {1}},
    "a text": "format: 1",
    "nothing": None,
}


@pytest.mark.parametrize("data", DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_it_refuses_hostile_data(data: Any) -> None:
    problems = briefly(lambda: validate(data))
    assert any(problem.severity == "error" for problem in problems)


def test_it_refuses_data_nested_deeper_than_the_stack() -> None:
    data: Any = []
    for _ in range(sys.getrecursionlimit() * 3):
        data = [data]
    assert briefly(lambda: validate({"a": data}))[0].code == "too_deep"


TEXTS = {
    "60,000 brackets": "[" * 60_000,
    "60,000 braces": '{"a":' * 12_000,
    "yaml brackets": "a: " + "[" * 60_000,
    "yaml indentation": "\n".join(" " * n + "a:" for n in range(330)),
    "a long number": '{"a": ' + "9" * 60_000 + "}",
    "a long yaml number": "a: " + "9" * 60_000,
    "a long exponent": '{"a": 1e' + "9" * 60_000 + "}",
    "billion laughs": "a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n",
    "an object": "!!python/object/apply:os.system ['true']",
    "an escaped surrogate": 'a: "\\ud83d"',
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_it_refuses_hostile_text(text: str) -> None:
    def refused() -> bool:
        with pytest.raises(PolicyInvalid):
            parse(text)
        return True

    assert briefly(refused)


def crowd(leaf: str, rules: int, leaves: int) -> dict[str, Any]:
    """Many long rules that differ only in their last comparison: the most expensive to compare."""
    shared = [leaf.format(n) for n in range(leaves - 1)]
    whens = [" || ".join([*shared, f"request.turns == {1_000 + rule}"]) for rule in range(rules)]
    return two_stage(rules=[{"id": f"r{n}", "when": when, "use": "large"} for n, when in enumerate(whens)])


@pytest.mark.parametrize("leaf", ["abcdef{} == 1", "request.promt_tokens == {}"])
def test_it_names_each_of_many_mistakes(leaf: str) -> None:
    document = parse(json.dumps(crowd(leaf, 40, 40), indent=1))
    problems = briefly(lambda: validate(document.data, locate=document.locate))
    assert Counter(problem.code for problem in problems) == {"unknown_input": 40 * 39}
    assert len({(problem.line, problem.column) for problem in problems}) == 40 * 39


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("fallback", [f"larg{n}" for n in range(5_000)], "unknown_model"),
        ("rules", [{"id": "default", "when": "", "use": "lagre"} for _ in range(1_000)], "reserved_id"),
    ],
)
def test_it_names_each_mistake_in_a_list_beyond_its_limit(key: str, value: list[Any], code: str) -> None:
    document = parse(json.dumps(two_stage(**{key: value})))
    problems = briefly(lambda: validate(document.data, locate=document.locate))
    codes = Counter(problem.code for problem in problems)
    assert (codes["too_many"], codes[code]) == (1, len(value))


def test_it_names_every_unknown_key_with_a_limited_number_of_suggestions() -> None:
    data = two_stage(**{f"fallbac{n}": 1 for n in range(4_000)})
    problems = briefly(lambda: validate(data))
    assert Counter(problem.code for problem in problems) == {"unknown_key": 4_000}
    assert "did you mean" in problems[0].message
    assert "did you mean" not in problems[-1].message


def test_it_names_500_problems_quickly() -> None:
    rules = [
        {"id": f"r{n}", "when": " || ".join([f"request.promt_tokens == {n}"] * 10), "use": "large"}
        for n in range(50)
    ]
    problems = briefly(lambda: validate(two_stage(rules=rules)))
    assert len(problems) == 500
    assert {problem.path for problem in problems} == {f"rules[{n}].when" for n in range(50)}
    assert 'did you mean "request.prompt_tokens"?' in problems[0].message


def test_comparing_many_long_rules_takes_bounded_steps() -> None:
    assert validate(crowd("request.turns == {}", 40, 50)) == []
    nested = crowd("(request.turns == {0} && request.tool_calls == {0})", 30, 25)
    assert validate(nested) == []
