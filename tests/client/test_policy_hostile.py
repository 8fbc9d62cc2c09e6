"""Input from attackers or accidents: always a problem, never a crash, never slow."""

import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import copy
from typing import Any, Literal, TypeVar

import pytest

from pointsman.assignment import compile_checked
from pointsman.conditions import FIRST_STAGE, examine
from pointsman.errors import PolicyInvalid
from pointsman.evaluate import compile_policy
from pointsman.policy import canonical, digest, parse, validate
from pointsman.policy.catalogue import CatalogueModel
from pointsman.policy.schema import SCHEMA
from pointsman.policy.validate import WorkloadRules
from pointsman.problems import Problem, first_of
from tests.client.policies import two_stage

MOST_CALLS = 1_000_000  # twice what the largest set of mistakes needs, and thirty times everything else
T = TypeVar("T")

CONDITIONS = {
    "16,000 terms": " || ".join(["true"] * 16_000),
    "100,000 parentheses": "(" * 100_000,
    "1,990 parentheses": "(" * 1_990,
    "1,990 negations": "!" * 1_990 + "true",
    "497 calls": "has(" * 497,
    "1,990 dots": "a" + ".a" * 990,
    "an endless list": "request.turns in [" + "1," * 900,
    "an unclosed string": '"' + "a" * 1_900,
    "backslashes": '"' + "\\" * 1_901,
    "a lone surrogate": '"\ud800"',
    "a lone surrogate outside": "\udfff",
    "an escaped surrogate": '"\\ud800"',
    "1,990 digits": "request.turns > " + "9" * 1_980,
    "a huge double": "request.confidence > 1e999999",
    "NaN": "request.confidence > NaN",
    "NUL": "request.turns > \0",
    "an empty condition": "",
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
    "a string": "format: 1",
    "None": None,
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


@pytest.mark.parametrize("syntax", ["yaml", "json"])
def test_a_refusal_of_a_text_lists_50_problems_and_counts_the_rest(
    syntax: Literal["json", "yaml"],
) -> None:
    """64 KiB of duplicate keys became 1.8 MB."""
    members = ", ".join(['"a": 1'] * 6_000)
    with pytest.raises(PolicyInvalid) as refused:
        parse(f'{{"{"k" * 900}": {{{members}}}}}', syntax=syntax)
    problems = refused.value.problems
    assert Counter(problem.code for problem in problems) == {"duplicate_key": 50, "more_problems": 1}
    assert (problems[-1].message, problems[-1].severity) == ("and 5,949 more", "error")
    assert len(json.dumps([problem.as_dict() for problem in problems])) < 50_000
    assert len(str(refused.value)) < 50_000


def test_an_error_is_listed_although_50_warnings_precede_it() -> None:
    warnings = [Problem("", f"w{n}", "", "warning") for n in range(60)]
    listed = first_of([*warnings, Problem("x", "e", "")])
    assert [(problem.code, problem.severity) for problem in listed[-3:]] == [
        ("w48", "warning"), ("e", "error"), ("more_problems", "warning"),
    ]  # fmt: skip
    assert len(listed) == 51 and listed[-1].message == "and 11 more"
    assert first_of(warnings[:50]) == warnings[:50]


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


# --- whole numbers written as doubles ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("member", "value", "code"),
    [
        ("inputs", {"v": {"type": "number", "default": 1e16}}, "bad_number"),
        ("inputs", {"v": {"type": "number", "default": -1e20}}, "bad_number"),
        ("inputs", {"v": {"type": "int", "default": 2.0**53}}, "bad_number"),
        ("inputs", {"v": {"type": "number", "default": 2.0**53 - 1}}, None),
        ("inputs", {"v": {"type": "number", "default": 1e21}}, None),  # written as 1e+21: every parser gives a double
        ("models", {"small": {"model": "a/b", "params": {"seed": 1e18}}, "large": {"model": "a/c"}}, "bad_number"),
        ("models", {"small": {"model": "a/b", "params": {"seed": 7.0}}, "large": {"model": "a/c"}}, None),
        ("timeouts", {"attempt_ms": 30_000.0, "total_ms": 20_000}, "timeouts_cross"),
        ("timeouts", {"attempt_ms": 30_000, "total_ms": 20_000.0}, "timeouts_cross"),
        ("timeouts", {"attempt_ms": 20_000.0, "total_ms": 20_000}, None),
        ("retry", {"attempts": 1.0, "on": ["timeout"], "backoff_ms": 200.0}, None),
        ("budget", {"max_cost_per_task_nusd": 5e7}, None),
        ("format", 1.0, None),
    ],
)  # fmt: skip
def test_it_refuses_a_whole_double_exactly_if_a_router_does(
    member: str, value: Any, code: str | None
) -> None:
    """Canonical JSON writes a whole double below 1e21 without a point, so routers read an integer."""
    written = two_stage(**{member: value})
    for data in (written, parse(json.dumps(written)).data):
        codes = [problem.code for problem in validate(data) if problem.severity == "error"]
        assert codes == ([code] if code else [])
        if not code:
            compile_checked(digest(data), json.loads(canonical(data)))


def test_it_retries_under_a_policy_with_whole_doubles() -> None:
    document = two_stage(retry={"attempts": 2.0, "on": ["timeout"], "backoff_ms": 200.0})
    policy = compile_policy(document)
    assert policy.retry.backoff_ms << policy.retry.attempts == 800


# --- every key, every kind of value ------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {
    "format": 1,
    "workload": "summaries",
    "models": {
        "small": {"model": "vendor/small", "params": {"temperature": 0.1}},
        "large": {"model": "vendor/large"},
    },
    "rank": ["small", "large"],
    "inputs": {"tier": {"type": "string", "default": "silver", "note": "the plan"}},
    "rules": [
        {"id": "gold", "when": 'request.attributes.tier == "gold"', "use": "large", "note": "they pay"},
        {"id": "critical", "when": 'request.priority == "critical"', "use": "small"},
        {"id": "long", "when": "request.prompt_tokens > 8000", "use": "large"},
    ],
    "default": "small",
    "escalate": {
        "max": 1, "to": "large", "on": ["error"], "when": "response.confidence < 0.7",
        "missing_confidence": "accept", "latch": "task",
    },
    "fallback": ["large", "small"],
    "retry": {"attempts": 1, "on": ["timeout"], "backoff_ms": 10},
    "timeouts": {"attempt_ms": 1_000, "total_ms": 5_000},
    "budget": {"max_cost_per_task_nusd": 10**9},
    "batch": False,
    "guard": {"on_evaluation_error": "large", "on_unknown_model": "large"},
}  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.1, 2**64, float("nan"), "", "small", "\ud800", [], [None], [[]], [{}], ["small"],
    [["small"]], [True], {}, {"": None}, {"small": None}, {"small": []}, {"a": {"b": [{}]}},
)  # fmt: skip
WORKLOAD = WorkloadRules("summaries", escalatable=False, retryable=False, batchable=False)
CATALOGUE = {
    name: CatalogueModel(name, 10, 20, context_window=100_000, enabled=True)
    for name in ("vendor/small", "vendor/large")
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield from places(part, (*at, name))


def with_value(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of the document with the value at one place replaced."""
    if not at:
        return value
    changed = copy(document)
    changed[at[0]] = with_value(document[at[0]], at[1:], value)
    return changed


def test_the_document_with_every_key_is_valid_and_has_every_key() -> None:
    assert [problem.code for problem in checked(EVERYTHING) if problem.severity == "error"] == [
        "not_escalatable", "not_retryable",
    ]  # fmt: skip
    assert set(EVERYTHING) == set(SCHEMA["properties"])


def checked(data: Any) -> list[Problem]:
    return validate(data, workload=WORKLOAD, catalogue=CATALOGUE)


@pytest.mark.parametrize("at", list(places(EVERYTHING)), ids=lambda at: "/".join(map(str, at)) or "all")
def test_it_never_raises_with_one_invalid_value(at: tuple[Any, ...]) -> None:
    """`"rank": true` did."""
    for value in VALUES:
        for problem in checked(with_value(EVERYTHING, at, value)):
            assert problem.code


def test_it_never_raises_with_two_invalid_values() -> None:
    rng, spots = random.Random("two places"), list(places(EVERYTHING))
    for _ in range(5_000):
        data: Any = EVERYTHING
        for at in rng.sample(spots, 2):
            with suppress(KeyError, IndexError, TypeError):  # the first change took the second's place away
                data = with_value(data, at, rng.choice(VALUES))
        checked(data)


@pytest.mark.timeout(60)  # if it were quadratic in the blanks, it would take minutes
@pytest.mark.parametrize("when", ['"1 \\x7c| b == 0"', "'1 || b == 0 '' '", "1 || b == 0 ||\n      c"])
def test_it_locates_problems_beside_a_long_run_of_blanks(when: str) -> None:
    rules = "".join(f"  - {{id: r{n}, use: small, when: {when}}}\n" for n in range(18))
    if "\n" in when:
        rules = "".join(f"  - id: r{n}\n    use: small\n    when: {when}\n" for n in range(18))
    text = f"format: 1\nworkload: w\nrules:\n{rules}# {' ' * 62_000}x\n"
    source = parse(text)
    assert any(problem.severity == "error" for problem in validate(source.data, locate=source.locate))
