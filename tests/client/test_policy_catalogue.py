"""Checks that only the control plane can make: the workload's rules and the model catalogue."""

from dataclasses import replace
from typing import Any

import pytest

from pointsman.policy import CatalogueModel, WorkloadRules, validate
from tests.client.policies import two_stage

OPEN = WorkloadRules("summaries", escalatable=True, retryable=True, batchable=True)
SMALL = CatalogueModel("vendor/small", 150_000_000, 600_000_000, 16_000, True, 0.8)
LARGE = CatalogueModel("vendor/large", 3_000_000_000, 15_000_000_000, 200_000, True, 0.9)


def found(
    policy: dict[str, Any], small: CatalogueModel = SMALL, large: CatalogueModel = LARGE
) -> list[tuple[str, str, str]]:
    problems = validate(policy, catalogue={model.name: model for model in (small, large)})
    return [(problem.path, problem.code, problem.severity) for problem in problems]


def tokens(when: str, use: str = "small") -> dict[str, Any]:
    return two_stage(rules=[{"id": "a", "when": when, "use": use}])


def test_it_accepts_what_the_workload_allows() -> None:
    policy = two_stage(retry={"attempts": 1, "on": ["timeout"]}, batch=True)
    assert validate(policy, workload=OPEN) == []


@pytest.mark.parametrize(
    ("forbidden", "code"),
    [("escalatable", "not_escalatable"), ("retryable", "not_retryable"), ("batchable", "not_batchable")],
)
def test_it_refuses_what_the_workload_forbids(forbidden: str, code: str) -> None:
    policy = two_stage(retry={"attempts": 1, "on": ["timeout"]}, batch=True)
    rules = WorkloadRules(
        "summaries", **{name: name != forbidden for name in ("escalatable", "retryable", "batchable")}
    )
    assert [p.code for p in validate(policy, workload=rules)] == [code]


def test_it_refuses_the_policy_of_another_workload() -> None:
    assert [p.code for p in validate(two_stage(), workload=replace(OPEN, name="other"))] == ["wrong_workload"]


def test_it_accepts_models_that_exist() -> None:
    assert found(two_stage()) == []


def test_it_refuses_models_that_do_not_exist_or_are_disabled() -> None:
    assert found(two_stage(), small=replace(SMALL, name="vendor/smal")) == [
        ("models.small.model", "not_in_catalogue", "error")
    ]
    assert found(two_stage(), large=replace(LARGE, enabled=False)) == [
        ("models.large.model", "model_disabled", "error")
    ]


def test_it_warns_about_an_escalation_to_a_worse_model() -> None:
    worse = replace(LARGE, quality=0.79)
    assert found(two_stage(), large=worse) == [("escalate.to", "escalates_down", "warning")]
    assert found(two_stage(), large=replace(LARGE, quality=None)) == []


@pytest.mark.parametrize(
    ("when", "severity"),
    [
        ("request.prompt_tokens > 15999", "error"),
        ("request.prompt_tokens >= 15999", None),
        ("request.prompt_tokens >= 16000 && request.turns > 1", "error"),
        ("request.prompt_tokens >= 16000 || request.turns > 1", None),
        ("!(request.prompt_tokens < 16000)", "error"),
        ("request.prompt_tokens in [16000, 17000]", "error"),
        ("request.prompt_tokens < 16002", "warning"),
        ("request.prompt_tokens <= 16000", None),
    ],
)
def test_it_compares_prompts_with_the_context_window(when: str, severity: str | None) -> None:
    assert found(tokens(when)) == ([("rules[0].when", "context_too_small", severity)] if severity else [])


@pytest.mark.parametrize(
    ("budget", "severities"),
    [
        (749, ["error", "error"]),  # small: one token in and one out cost 750
        (750, ["error", "warning"]),
        (299_999, ["error", "warning"]),  # a typical call of small: 150,000 in, 150,000 out
        (300_000, ["error"]),
        (24_017_999, ["error"]),
        (24_017_999.0, ["error"]),  # canonical JSON writes it as an integer
        (24_018_000, ["warning"]),  # the rule sends prompts of 8,001 tokens and more to the large model
        (30_000_000, []),
    ],
)
def test_it_compares_the_budget_with_one_call(budget: float, severities: list[str]) -> None:
    problems = found(two_stage(budget={"max_cost_per_task_nusd": budget}))
    assert all(problem[:2] == ("budget.max_cost_per_task_nusd", "budget_too_small") for problem in problems)
    assert sorted(problem[2] for problem in problems) == sorted(severities)


def test_it_names_the_tokens_of_the_call_that_a_budget_is_compared_with() -> None:
    data = two_stage(budget={"max_cost_per_task_nusd": 24_020_000})
    problems = validate(data, catalogue={model.name: model for model in (SMALL, LARGE)})
    assert [problem.message for problem in problems] == [
        "less than a typical call to large costs (27,753,000 nano-dollars at 8,001 input tokens)"
    ]
