"""Policies for the client's tests: the usual two stages, with the changes of a test."""

from typing import Any


def two_stage(**changes: Any) -> dict[str, Any]:
    """The cheap model first, the strong one on uncertainty or failure."""
    policy: dict[str, Any] = {
        "format": 1,
        "workload": "summaries",
        "models": {"small": {"model": "vendor/small"}, "large": {"model": "vendor/large"}},
        "rules": [{"id": "heavy", "when": "request.prompt_tokens > 8000", "use": "large"}],
        "default": "small",
        "escalate": {"max": 1, "to": "large", "on": ["error"], "when": "response.confidence < 0.7"},
        "fallback": ["large", "small"],
    }
    return {**policy, **changes}


def always(model: str) -> dict[str, Any]:
    """Route everything to one of the two models; the other is the fallback."""
    other = "large" if model == "small" else "small"
    policy = two_stage(rules=[], default=model, fallback=[other])
    if model == "large":
        del policy["escalate"]
    return policy
