from typing import Any

import pytest

from pointsman.attempt import Attempt
from pointsman.choose import decide
from pointsman.evaluate import CompiledPolicy, compile_policy
from tests.client.deciding import assigned, entry
from tests.client.vectors import vectors

VECTORS = vectors("decisions")


def named(case: dict[str, Any]) -> str:
    return str(case["about"])


@pytest.fixture(scope="module")
def policies() -> dict[str, CompiledPolicy]:
    return {name: compile_policy(data) for name, data in VECTORS["policies"].items()}


@pytest.mark.parametrize("case", VECTORS["routes"], ids=named)
def test_it_routes_like_every_other_language(
    case: dict[str, Any], policies: dict[str, CompiledPolicy]
) -> None:
    route = policies[case["policy"]].route(case["request"], case["history"])
    assert (route.rule, route.alias, list(route.missing)) == (case["rule"], case["model"], case["missing"])
    assert not route.error


@pytest.mark.parametrize("case", VECTORS["tasks"], ids=named)
def test_it_continues_like_every_other_language(case: dict[str, Any]) -> None:
    decision = decide(assigned(entry(VECTORS["policies"][case["policy"]])), case["request"])
    steps = [
        decision.next(Attempt(**a), expected_cost_nusd=case["expected_cost_nusd"]) for a in case["attempts"]
    ]
    found = [(step.action, step.alias, step.code, step.delay_ms) for step in steps]
    assert found == [
        (step["action"], step["model"], step["code"], step["delay_ms"]) for step in case["steps"]
    ]
    assert decision.steps.blocked == case["blocked"]
    assert all(step.reason for step in steps)
    assert steps[-1].done
    assert not any(step.done for step in steps[:-1])
