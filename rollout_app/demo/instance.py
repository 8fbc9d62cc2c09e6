"""Set up the rows that the stories need, through the same actions that people use. Repeatable."""

from collections.abc import Iterable
from dataclasses import dataclass

from django.contrib.auth.models import User

from controlplane.access.actions import create_person, create_team, grant_role, issue_key, revoke_key
from controlplane.access.models import Key, Role, Team
from controlplane.core.actors import SYSTEM, Actor
from policies_app import actions
from policies_app.models import Environment, Model, PolicyVersion, Workload
from rollout_app.actions import set_guardrail
from rollout_app.demo.stories import Story
from rollout_app.recorded import GEMINI, HAIKU, STRONG, WEAK

KEY_LABEL = "the demo's routers"
OWNER, REVIEWER = "ines", "omar"

# US dollars per million tokens in and out, and the context window: the providers' list prices as published in
# 2025 (openai.com/api/pricing, docs.anthropic.com/en/docs/about-claude/pricing,
# ai.google.dev/gemini-api/docs/pricing). RouteLLM's two models use the prices of its paper (arXiv
# 2406.18665), which gives one blended price for input and output.
CATALOGUE = {
    "openai/gpt-4.1": (2.00, 8.00, 1_047_576),
    "openai/gpt-4.1-mini": (0.40, 1.60, 1_047_576),
    "openai/gpt-4o-mini": (0.15, 0.60, 128_000),
    "anthropic/claude-sonnet-4-5": (3.00, 15.00, 200_000),
    "anthropic/claude-haiku-4-5": (1.00, 5.00, 200_000),
    "google/gemini-2.5-flash": (0.30, 2.50, 1_048_576),
    HAIKU: (0.25, 1.25, 200_000),
    GEMINI: (0.10, 0.40, 1_048_576),
    STRONG: (24.70, 24.70, 128_000),
    WEAK: (0.24, 0.24, 32_768),
}
NUSD = 10**9


@dataclass(frozen=True, slots=True)
class Served:
    """A story's rows: where it runs, and the version to move to."""

    environment: Environment
    workload: Workload
    candidate: PolicyVersion


def set_up(stories: Iterable[Story]) -> dict[str, Served]:
    """Create what is missing. Return each story's rows by its letter."""
    owner, _ = _people()
    team = Team.objects.filter(name="routing").first() or create_team(
        "routing", actor=SYSTEM, members=[owner]
    )
    for name, (tokens_in, tokens_out, window) in CATALOGUE.items():
        if not Model.objects.filter(name=name).exists():
            actions.add_model(
                name,
                actor=SYSTEM,
                input_nusd_per_mtok=round(tokens_in * NUSD),
                output_nusd_per_mtok=round(tokens_out * NUSD),
                context_window=window,
            )
    return {story.letter: _serve(story, team, Actor.of_user(owner)) for story in stories}


def _people() -> tuple[User, User]:
    """Create the owner, who proposes, and the reviewer, who approves. Neither can log in; you are the administrator."""
    roles = {OWNER: (Role.EDITOR, Role.OPERATOR), REVIEWER: (Role.APPROVER,)}
    people = []
    for name, held in roles.items():
        person = User.objects.filter(username=name).first()
        if person is None:
            # Without a password there is no login.
            person = create_person(name, actor=SYSTEM, reason="One of the demo's people.")
            for role in held:
                grant_role(person, role, "", actor=SYSTEM, reason="One of the demo's people.")
        people.append(person)
    return people[0], people[1]


def person(name: str) -> Actor:
    return Actor.of_user(User.objects.get(username=name))


def _serve(story: Story, team: Team, author: Actor) -> Served:
    environment = Environment.objects.filter(name=story.environment).first() or actions.register_environment(
        story.environment, actor=SYSTEM, four_eyes=False
    )
    if workload := Workload.objects.filter(name=story.workload).first():
        return Served(environment, workload, workload.versions.get(number=2))
    workload = actions.register_workload(
        story.workload,
        actor=author,
        description=story.description,
        task_type=story.task_type,
        quality_bar=story.quality_bar,
        retryable=False,
        owner=team,
        outcome_lag_s=0,  # the grades were recorded long ago, so none is late
    )
    for metric, reason in story.off.items():
        set_guardrail(workload, metric, actor=author, reason=reason, enabled=False)
    first = actions.add_version(workload, story.baseline, actor=author, note="The original policy.")
    actions.serve_first(environment, first, actor=SYSTEM, reason="The policy before the story begins.")
    if story.approved_by_a_person:
        environment = actions.edit_environment(
            environment, actor=SYSTEM, reason="From now on a second person must approve.", four_eyes=True
        )
    candidate = actions.add_version(workload, story.candidate, actor=author, note=story.why)
    return Served(environment, workload, candidate)


def fresh_router_key(environment: str) -> str:
    """Issue a new key for the demo's routers and revoke those of earlier runs. The key's text is not stored."""
    forget_router_keys(environment)
    _, text = issue_key(Key.Kind.ROUTER, environment, KEY_LABEL, actor=SYSTEM)
    return text


def forget_router_keys(environment: str) -> None:
    for key in Key.objects.filter(environment=environment, label=KEY_LABEL, revoked_at=None):
        revoke_key(key.key_id, actor=SYSTEM, reason="The demo has ended or is starting again.")
