from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from pointsman.errors import PolicyInvalid
from pointsman.policy import json_schema, parse, validate
from tests.client.vectors import vectors

VECTORS = vectors("policies")
# Codes that the JSON Schema also checks: with one of them a document must fail there, without any it must pass.
SHAPE = {
    "missing_key",
    "unknown_key",
    "wrong_type",
    "not_allowed",
    "out_of_range",
    "bad_name",
    "too_few",
    "too_many",
}


def named(case: dict[str, Any]) -> str:
    return str(case["about"])


@pytest.mark.parametrize("case", VECTORS["documents"], ids=named)
def test_it_names_every_problem_of_a_document(case: dict[str, Any]) -> None:
    found = [(problem.path, problem.code, problem.severity) for problem in validate(case["document"])]
    expected = [(problem["path"], problem["code"], problem["severity"]) for problem in case["problems"]]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("case", VECTORS["texts"], ids=named)
def test_it_names_the_place_where_a_text_cannot_be_parsed(case: dict[str, Any]) -> None:
    with pytest.raises(PolicyInvalid) as refusal:
        parse(case["text"], syntax=case["syntax"])
    found = [(problem.path, problem.code, problem.line, problem.column) for problem in refusal.value.problems]
    assert found == [
        (problem["path"], problem["code"], problem["line"], problem["column"]) for problem in case["problems"]
    ]


@pytest.mark.parametrize("case", VECTORS["documents"], ids=named)
def test_it_agrees_with_its_json_schema(case: dict[str, Any]) -> None:
    shaped = Draft202012Validator(json_schema()).is_valid(case["document"])
    problems = validate(case["document"])
    if not problems:
        assert shaped
    if not shaped:
        assert {problem.code for problem in problems} & SHAPE
