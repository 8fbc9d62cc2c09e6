"""A policy as flagd flag definitions: the conversion and its refusals. `tests/integrations` tests it with flagd."""

import json
from typing import Any

import pytest

from pointsman.errors import ConfigurationError
from pointsman.integrations.flagd import definitions, flag

POLICY: dict[str, Any] = {
    "format": 1,
    "workload": "chat",
    "models": {"small": {"model": "x/small"}, "large": {"model": "x/large"}},
    "rules": [{"id": "long", "when": "request.prompt_tokens > 100", "use": "large"}],
    "default": "small",
    "fallback": ["large", "small"],
}


def test_a_workload_is_a_flag_and_a_missing_input_matches_nothing() -> None:
    document = json.loads(definitions([POLICY]))
    tokens = {"var": "prompt_tokens"}
    present = {"!==": [tokens, None]}
    assert document["flags"]["chat"] == {
        "state": "ENABLED",
        "variants": {
            "small": {"model": "x/small", "params": {}},
            "large": {"model": "x/large", "params": {}},
        },
        "defaultVariant": "small",
        "targeting": {"if": [{"and": [present, {">": [tokens, 100]}]}, "large", "small"]},
    }


def test_without_rules_there_is_no_targeting() -> None:
    assert "targeting" not in flag({**POLICY, "rules": []})


@pytest.mark.parametrize(
    ("when", "what"),
    [
        ("history.failure_rate > 0.1", "history.failure_rate"),
        ("size(request.endpoint) > 3", "number of characters"),
    ],
)
def test_an_error_names_the_rule_that_flagd_cannot_express(when: str, what: str) -> None:
    rules = [{"id": "bad", "when": when, "use": "large"}]
    with pytest.raises(ConfigurationError, match=f"chat, rule bad: flagd does not support .*{what}"):
        flag({**POLICY, "rules": rules})


def test_a_pin_to_an_unknown_model_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the pin 'huge' is not one of its models"):
        flag(POLICY, "huge")
