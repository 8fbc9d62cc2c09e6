"""A policy as flagd definitions: flagd's in-process provider decides like a router."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "openfeature.contrib.provider.flagd",
    reason="flagd's provider is not installed here; `make integrations` has it",
)

from openfeature import api  # noqa: E402
from openfeature.contrib.provider.flagd import FlagdProvider  # noqa: E402
from openfeature.contrib.provider.flagd.config import ResolverType  # noqa: E402
from openfeature.evaluation_context import EvaluationContext  # noqa: E402

from pointsman.evaluate import compile_policy  # noqa: E402
from pointsman.integrations.flagd import definitions  # noqa: E402
from pointsman.integrations.flags import inputs_of  # noqa: E402

CONDITIONS = [
    "request.prompt_tokens > 100",
    "request.prompt_tokens <= 100",
    "request.turns == 3 || request.language != 'en'",
    "!(request.prompt_tokens < 50) && has(request.endpoint)",
    "!has(request.endpoint)",
    "request.endpoint.startsWith('/a')",
    "!request.endpoint.endsWith('/b')",
    "request.endpoint.contains('x')",
    "request.customer_tier in ['gold', 'silver']",
    "!(request.customer_tier in ['gold'])",
    "request.attributes.contract >= 2.5",
    "request.attributes.beta",
    "!request.attributes.beta || request.attributes.contract < 1.0",
    "request.attributes.area == 'EU'",
    "!has(request.attributes.area) || request.attributes.area != 'EU'",
    "request.priority == 'high' && (request.turns > 2 || request.attributes.beta)",
]
POLICY: dict[str, Any] = {
    "format": 1,
    "workload": "chat",
    "models": {"small": {"model": "x/small"}, "large": {"model": "x/large", "params": {"temperature": 0}}},
    "inputs": {
        "contract": {"type": "number"},
        "beta": {"type": "bool"},
        "area": {"type": "string", "default": "EU"},
    },
    "default": "small",
    "fallback": ["large", "small"],
}
VALUES: dict[str, list[Any]] = {
    "prompt_tokens": [0, 49, 50, 51, 100, 101, 5_000], "turns": [0, 2, 3, 9], "language": ["en", "de", ""],
    "endpoint": ["/a", "/a/b", "/x", "/b", ""], "customer_tier": ["gold", "silver", "iron"],
    "priority": ["low", "high"], "contract": [0.0, 1.0, 2.5, 3], "beta": [True, False], "area": ["EU", "US"],
}  # fmt: skip


def policies() -> list[dict[str, Any]]:
    """One for each condition, and one with all of them in sequence."""
    single = [
        {**POLICY, "workload": f"chat-{at}", "rules": [{"id": "r", "when": when, "use": "large"}]}
        for at, when in enumerate(CONDITIONS)
    ]
    rules = [
        {"id": f"r{at}", "when": when, "use": ("small", "large")[at % 2]}
        for at, when in enumerate(CONDITIONS)
    ]
    return [*single, {**POLICY, "workload": "all", "rules": rules}]


def contexts() -> list[dict[str, Any]]:
    """Each input is present or missing at random, with a fixed seed."""
    chance = random.Random(7)
    return [
        {name: chance.choice(values) for name, values in VALUES.items() if chance.random() < 0.6}
        for _ in range(200)
    ]


def test_flagd_decides_like_a_router(tmp_path: Path) -> None:
    file = tmp_path / "flags.json"
    file.write_text(definitions(policies()))
    api.set_provider_and_wait(
        FlagdProvider(resolver_type=ResolverType.FILE, offline_flag_source_path=str(file))
    )
    try:
        client = api.get_client()
        for policy in policies():
            compiled = compile_policy(policy)
            for context in contexts():
                route = compiled.route(inputs_of(context))
                found = client.get_object_details(policy["workload"], {}, EvaluationContext("u-1", context))
                assert found.error_code is None, found
                assert found.value == {"model": route.model, "params": dict(route.params)}, (
                    policy["rules"],
                    context,
                )
    finally:
        api.shutdown()


def test_a_pin_is_the_default_and_leaves_no_targeting() -> None:
    flags = json.loads(definitions([policies()[0]], {"chat-0": "large"}))["flags"]["chat-0"]
    assert (flags["defaultVariant"], "targeting" in flags) == ("large", False)
