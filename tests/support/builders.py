"""Test data, created with the real actions. Each call creates a new object; `next_name` makes names unique."""

from itertools import count
from typing import Any

from controlplane.access import change_requests
from controlplane.access.models import ChangeRequest, Team
from controlplane.core.actors import SYSTEM, Actor
from policies_app import actions
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Workload

_numbers = count(1)

# Nano-USD per million tokens: $0.15 in, $0.60 out; $3 in, $15 out.
CATALOGUE = {
    "openai/gpt-4o-mini": (150_000_000, 600_000_000, 128_000, 0.82),
    "anthropic/claude-sonnet-4-5": (3_000_000_000, 15_000_000_000, 200_000, 0.93),
}


def next_name(kind: str) -> str:
    return f"{kind}-{next(_numbers)}"


def environment(name: str = "", **fields: Any) -> Environment:
    """An environment without four eyes, so that a test about something else needs no second person."""
    return actions.register_environment(
        name or next_name("environment"), actor=SYSTEM, **({"four_eyes": False} | fields)
    )


def team(name: str = "") -> Team:
    return Team.objects.create(name=name or next_name("team"))


def catalogue() -> dict[str, Model]:
    """Return the two models of `document`, and add them if they are missing."""
    for name, (tokens_in, tokens_out, window, quality) in CATALOGUE.items():
        if not Model.objects.filter(name=name).exists():
            actions.add_model(
                name,
                actor=SYSTEM,
                input_nusd_per_mtok=tokens_in,
                output_nusd_per_mtok=tokens_out,
                context_window=window,
                quality=quality,
            )
    return {model.name: model for model in Model.objects.filter(name__in=CATALOGUE)}


def workload(name: str = "", **fields: Any) -> Workload:
    """A workload whose outcomes count at once (no lag)."""
    defaults: dict[str, Any] = {"task_type": "summary", "quality_bar": "0.9", "outcome_lag_s": 0}
    if "owner" not in fields:
        defaults["owner"] = team()
    return actions.register_workload(name or next_name("workload"), actor=SYSTEM, **(defaults | fields))


def document(workload: Workload, **changes: Any) -> dict[str, Any]:
    """A two-stage document: small by default, large for long prompts and when the small one is unsure."""
    plain: dict[str, Any] = {
        "format": 1,
        "workload": workload.name,
        "models": {
            "small": {"model": "openai/gpt-4o-mini"},
            "large": {"model": "anthropic/claude-sonnet-4-5"},
        },
        "rules": [{"id": "heavy", "when": "request.prompt_tokens > 8000", "use": "large"}],
        "default": "small",
        "escalate": {
            "max": 1,
            "to": "large",
            "on": ["error", "timeout"],
            "when": "response.confidence < 0.7",
        },
        "fallback": ["large", "small"],
    }
    return plain | changes


def version(workload: Workload, *, actor: Actor = SYSTEM, **changes: Any) -> PolicyVersion:
    """Create a version. Without changes its content still differs from every other one, by the rule's threshold."""
    catalogue()
    if not changes:
        when = f"request.prompt_tokens > {8_000 + next(_numbers)}"
        changes = {"rules": [{"id": "heavy", "when": when, "use": "large"}]}
    return actions.add_version(workload, document(workload, **changes), actor=actor)


def served(environment: Environment, workload: Workload, **changes: Any) -> Assignment:
    """Create a first version and serve it."""
    return actions.serve_first(
        environment,
        version(workload, **changes),
        actor=SYSTEM,
        reason="the first version",
        break_glass=environment.four_eyes,
    )


def served_in_two_environments() -> Workload:
    """Create the workload `summaries`, whose first version is served in staging and, under four eyes, in production."""
    made = workload("summaries")
    first = served(environment("staging"), made).baseline
    production = environment("production", four_eyes=True)
    actions.serve_first(production, first, actor=SYSTEM, reason="first", break_glass=True)
    return made


def request_that_needs_two() -> ChangeRequest:
    """Create the environment `production`, and a request by a key without a person: two approvers must agree."""
    environment("production")
    return change_requests.ask(
        "environment.four_eyes_off",
        called="Switching four eyes off in production",
        environment="production",
        subject={"four_eyes": False},
        contributors=[None],
        actor=SYSTEM,
        reason="x",
    )
