import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.assignment import compile_checked
from pointsman.errors import ConfigurationError, PolicyInvalid
from pointsman.policy import canonical, digest, load, parse, validate
from tests.client.policies import two_stage

FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FINITE | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)

YAML = """\
format: 1
workload: summaries
models:
  small: {model: vendor/small}
  large: {model: vendor/large}
rules:
  - id: heavy
    when: request.promt_tokens > 8000 || request.confidence > 2
    use: lrge
default: small
fallback: [large]
escalate: {to: large, on: [refusal]}
"""


def refusal(text: str | bytes, **options: Any) -> PolicyInvalid:
    with pytest.raises(PolicyInvalid) as caught:
        parse(text, **options)
    return caught.value


def test_it_names_all_problems_with_line_column_and_a_suggestion() -> None:
    document = parse(YAML)
    problems = validate(document.data, locate=document.locate)
    assert [(problem.line, problem.column, problem.code) for problem in problems] == [
        (8, 11, "unknown_input"),
        (8, 42, "never_holds"),
        (9, 10, "unknown_model"),
    ]
    assert 'did you mean "request.prompt_tokens"?' in problems[0].message
    assert 'did you mean "large"?' in problems[2].message


def test_it_finds_the_column_inside_escaped_json() -> None:
    text = json.dumps(
        two_stage(rules=[{"id": "a", "when": 'request.language == "d" && nope', "use": "large"}]), indent=1
    )
    document = parse(text)
    (problem,) = validate(document.data, locate=document.locate)
    assert problem.line is not None and problem.column is not None
    assert text.splitlines()[problem.line - 1][problem.column - 1 :].startswith("nope")


def test_the_yaml_key_on_is_text_and_not_true() -> None:
    assert parse(YAML).data["escalate"]["on"] == ["refusal"]


def test_it_keeps_the_rank_through_canonical_json() -> None:
    written = two_stage()
    served = json.loads(canonical(written))
    assert list(served["models"]) == ["large", "small"]
    assert served["rank"] == ["small", "large"]
    assert digest(served) == digest(written)
    swapped = two_stage(models=dict(reversed(written["models"].items())))
    assert digest(swapped) != digest(written)


def test_its_digest_does_not_depend_on_the_format() -> None:
    data = {**parse(YAML).data, "rules": []}
    assert (
        digest(data)
        == digest(parse(json.dumps(data, indent=3)).data)
        == digest(parse(json.dumps(data).encode()).data)
    )


def test_it_reads_64_kib_and_refuses_a_byte_more() -> None:
    text = '{"a": "' + "x" * (65_536 - 9) + '"}'
    assert len(text) == 65_536
    parse(text)
    assert refusal(text + " ").problems[0].code == "too_large"


def test_it_reads_32_levels_and_refuses_33() -> None:
    for syntax in ("json", "yaml"):
        parse('{"a":' + "[" * 31 + "]" * 31 + "}", syntax=syntax)
        assert refusal('{"a":' + "[" * 32 + "]" * 32 + "}", syntax=syntax).problems[0].code == "too_deep"


def test_it_refuses_bytes_that_are_not_utf_8() -> None:
    assert refusal(b'{"a": "\xff"}').problems[0].code == "not_utf8"


@pytest.mark.parametrize("text", ['"\ud800": 1', 'a: "\\ud800"', 'a: "\\0"', "a: \0"])
def test_it_refuses_nul_and_lone_surrogates_in_yaml(text: str) -> None:
    assert refusal(text, syntax="yaml").problems


def test_it_names_the_missing_package_for_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"pointsman\[yaml\]"):
        parse(YAML)


def test_it_loads_valid_and_refuses_invalid_policies() -> None:
    assert load(json.dumps(two_stage())) == two_stage()
    with pytest.raises(PolicyInvalid) as caught:
        load(YAML)
    assert len(caught.value.problems) == 3


@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_it_reads_json_like_the_standard_library(data: dict[str, Any]) -> None:
    assert parse(json.dumps(data), syntax="json").data == data
    assert parse(json.dumps(data, ensure_ascii=False, indent=2), syntax="json").data == data


@given(st.text() | st.binary())
def test_it_never_fails_on_any_text(text: str | bytes) -> None:
    for syntax in (None, "json", "yaml"):
        try:
            validate(parse(text, syntax=syntax).data)
        except PolicyInvalid as invalid:
            assert invalid.problems


@given(JSON | st.dictionaries(st.sampled_from(list(two_stage())), JSON))
def test_it_never_fails_on_any_data(data: Any) -> None:
    assert isinstance(validate(data), list)
    changed = two_stage(**data) if isinstance(data, dict) else data
    assert isinstance(validate(changed), list)


@given(st.dictionaries(TEXT, JSON | st.integers(-(10**22), 10**22).map(float), max_size=3))
def test_a_router_compiles_whatever_is_valid(params: dict[str, Any]) -> None:
    models = {"small": {"model": "vendor/small", "params": params}, "large": {"model": "vendor/large"}}
    data = two_stage(models=models)
    if not any(problem.severity == "error" for problem in validate(data)):
        assert compile_checked(digest(data), json.loads(canonical(data))).models["small"][1] == params


FOLDED = {
    "plain": 'request.language == "de" ||{fold}nope',
    "single quotes": """'request.language == "it''s" ||{fold}nope'""",
    "double quotes": """"request.language == \\"de\\" ||{fold}nope\"""",
    "double quotes without escapes": """"request.turns > 1 ||{fold}nope\"""",
    "an escaped line break": """"request.turns > 1 \\\n      ||{fold}nope\"""",
}


@pytest.mark.parametrize(
    "fold",
    [
        " ",
        "\n      ",
        " \t\n      ",
        "\r\n      ",
        "\n\n      ",
        "\n  \n \n      ",
        "\n      request.turns > 2 ||\n       ",
    ],
)
@pytest.mark.parametrize("style", FOLDED)
def test_it_finds_a_problem_on_the_line_of_a_folded_condition(style: str, fold: str) -> None:
    when = FOLDED[style].format(fold=fold)
    text = YAML.replace("request.promt_tokens > 8000 || request.confidence > 2", when).replace(
        "lrge", "large"
    )
    document = parse(text)
    (problem,) = validate(document.data, locate=document.locate)
    before = text[: text.index("nope")]
    assert (problem.line, problem.column) == (before.count("\n") + 1, len(before) - before.rindex("\n"))


@pytest.mark.parametrize(("quote", "end"), [("", (8, 31)), ("'", (9, 7)), ('"', (9, 7))])
def test_it_finds_the_end_of_a_folded_condition(quote: str, end: tuple[int, int]) -> None:
    text = YAML.replace(
        "request.promt_tokens > 8000 || request.confidence > 2", f"{quote}request.turns > 1 ||\n      {quote}"
    ).replace("lrge", "large")
    document = parse(text)
    (problem,) = validate(document.data, locate=document.locate)
    assert (problem.line, problem.column) == end


@pytest.mark.parametrize("before", ["", "\\u0041", "\\n\\n", "\\ud83d\\ude00", "é"])
def test_it_counts_columns_in_the_original_text(before: str) -> None:
    text = f'{{"rules": [{{"when": "has(\'{before}\') || nope"}}]}}'
    when = "has('" + json.loads(f'"{before}"') + "') || "
    assert parse(text).locate("rules[0].when", len(when)) == (1, text.index("nope") + 1)
