"""People who use the console, and rollouts in the states that its pages show."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.contrib.auth.models import User
from django.test import Client

from controlplane.access.models import Membership, Team
from controlplane.core.actors import SYSTEM, Actor
from policies_app.models import Environment, Workload
from rollout_app import actions
from rollout_app.actions.transitions import loaded
from rollout_app.models import Rollout

People = Callable[..., Client]
ONE_STEP: list[dict[str, Any]] = [{"mode": "percentage", "share_pcm": 5_000}, {"mode": "full"}]


def logged_in(name: str, *roles: str, environment: str = "", team: Team | None = None) -> Client:
    """The browser of this person, with these roles in the environment (empty: everywhere), on that team."""
    user, _ = User.objects.get_or_create(username=name)
    for role in roles:
        Membership.objects.get_or_create(user=user, environment=environment, role=role)
    if team is not None:
        team.members.add(user)
    client = Client()
    client.force_login(user)
    return client


def actor_of(name: str) -> Actor:
    return Actor.of_user(User.objects.get_or_create(username=name)[0])


def approve(rollout: Rollout | UUID, by: str = "eva") -> Rollout:
    """Approve the start, as an approver of the environment."""
    rollout = loaded(rollout)
    return actions.approve_rollout(
        rollout, actor=approver(rollout, by), reason="looks right", expected_binding=actions.binding(rollout)
    )


def approve_stage(rollout: Rollout, stage: int, by: str = "eva") -> Rollout:
    bound = actions.binding(rollout, stage)
    return actions.approve_stage(
        rollout, stage, actor=approver(rollout, by), reason="yes", expected_binding=bound
    )


def approver(rollout: Rollout, name: str) -> Actor:
    actor, environment = actor_of(name), rollout.environment.name
    Membership.objects.get_or_create(user_id=int(actor.id), environment=environment, role="approver")
    return actor


def proposed(
    workload: Workload, environment: Environment, by: str = "maria", *, draft: bool = False
) -> Rollout:
    """A rollout of the newest version, waiting for an approval if the environment requires one."""
    newest = workload.versions.first()
    assert newest is not None
    return actions.propose_rollout(
        environment, workload, newest, plan=ONE_STEP, reason="cheaper", actor=actor_of(by), draft=draft
    )


def running(workload: Workload, environment: Environment) -> Rollout:
    rollout = proposed(workload, environment)
    if environment.four_eyes:
        rollout = approve(rollout)
    return actions.start_rollout(rollout, actor=SYSTEM, reason="now")
