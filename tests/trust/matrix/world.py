"""The objects that callers act on: production with four eyes, and a workload with a rollout in each state."""

from dataclasses import dataclass, field
from typing import Any

from allauth.mfa.totp.internal.auth import TOTP
from django.contrib.auth.models import User

from controlplane.access import actions as access
from controlplane.access.models import ChangeRequest, Invitation, Key, Membership, Team
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.notifications import actions as notifications
from controlplane.notifications import outbox
from controlplane.notifications.models import Delivery
from policies_app import actions as policies
from policies_app.four_eyes.actions import request_four_eyes_off, request_serving
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app import actions as rollouts
from rollout_app.models import Rollout
from tests.support import builders

STATES = ("draft", "awaiting", "scheduled", "running", "paused", "last", "completed", "asking")
WORKLOADS = frozenset(f"w-{name}" for name in (*STATES, "unserved", "plain", "new", "pinned"))
STEP = {"mode": "percentage", "share_pcm": 5_000}
FULL = {"mode": "full"}


@dataclass
class World:
    team: Team
    production: Environment
    rollouts: dict[str, Rollout] = field(default_factory=dict)  # by state
    versions: dict[str, PolicyVersion] = field(default_factory=dict)
    changes: dict[str, ChangeRequest] = field(
        default_factory=dict
    )  # `serving` of `unserved`, four eyes `off`
    people: dict[str, User] = field(default_factory=dict)  # `plain`, `closed`, `root`, with a `second_factor`
    invitation: Invitation = field(init=False)  # to production
    router_key: Key = field(init=False)
    membership: Membership = field(init=False)
    dead: Delivery = field(init=False)  # given up; its receiver is one of notifications
    # Both without an environment: of a guardrail, which anybody with a role may see, and of a receiver, which not.
    entry: Entry = field(init=False)
    private_entry: Entry = field(init=False)


def make() -> World:
    maria, ben = _actor("maria", "admin"), _actor("ben", "approver")
    team = access.create_team("support", actor=SYSTEM)
    world = World(team, policies.register_environment("production", actor=SYSTEM, four_eyes=True))
    policies.register_environment("staging", actor=SYSTEM, four_eyes=False)
    for name in ("unserved", "plain", "pinned", *STATES):
        workload = builders.workload(f"w-{name}", owner=team)
        world.versions[name] = builders.version(workload, actor=maria)
        if name != "unserved":
            policies.serve_first(
                world.production, world.versions[name], actor=SYSTEM, reason="r", break_glass=True
            )
    for state in STATES:
        world.rollouts[state] = _rollout(world, state, maria, ben)
    pinned = policies.served_assignment(world.production.pk, world.versions["pinned"].workload_id)
    policies.pin(pinned, "large", actor=SYSTEM, reason="r")
    world.changes["serving"] = request_serving(
        world.production, world.versions["unserved"], actor=maria, reason="r"
    )
    world.changes["off"] = request_four_eyes_off(world.production, actor=maria, reason="r")
    world.router_key, _ = access.issue_key("router", "production", "gateway", actor=SYSTEM)
    ann = User.objects.create(username="ann")
    world.membership = access.grant_role(ann, "viewer", "production", actor=SYSTEM)
    User.objects.create(username="newcomer")
    _people(world)
    rollouts.add_plan("ours", [FULL], actor=SYSTEM)
    rollouts.set_guardrail(_workload("plain"), "failure", actor=SYSTEM, margin=0.01)
    receiver, _ = notifications.add_receiver("ops", "webhook", "https://hooks.example.org/", actor=SYSTEM)
    world.dead = outbox.test_message(receiver, by="r")
    Delivery.objects.update(state=Delivery.State.DEAD)
    world.entry = Entry.objects.filter(action="guardrail.set").latest("seq")
    world.private_entry = Entry.objects.filter(action="receiver.add").latest("seq")
    return world


def _people(world: World) -> None:
    User.objects.create_superuser("chief")  # remains, whoever is removed
    world.people = {
        "plain": User.objects.create_user("plain"),
        "closed": User.objects.create_user("closed", is_active=False),
        "root": User.objects.create_superuser("root"),
        "second_factor": User.objects.create_user("second_factor"),
    }
    TOTP.activate(world.people["second_factor"], "JBSWY3DPEHPK3PXP")
    roles = [{"environment": "production", "role": "viewer"}]
    world.invitation, _ = access.invite("Nina", actor=SYSTEM, roles=roles, reason="r")


def _actor(name: str, *roles: str) -> Actor:
    user = User.objects.create(username=name)
    for role in roles:
        Membership.objects.create(user=user, environment="production", role=role)
    return Actor.of_user(user)


def _workload(name: str) -> Workload:
    return Workload.objects.get(name=f"w-{name}")


def _rollout(world: World, state: str, maria: Actor, ben: Actor) -> Rollout:
    plan: list[dict[str, Any]] = [STEP, FULL | {"approval": state == "asking"}]
    candidate = builders.version(_workload(state), actor=maria)
    rollout = rollouts.propose_rollout(
        world.production,
        _workload(state),
        candidate,
        plan=plan,
        reason="r",
        actor=maria,
        draft=state == "draft",
    )
    if state in ("draft", "awaiting"):
        return rollout
    rollout = rollouts.approve_rollout(
        rollout, actor=ben, reason="r", expected_binding=rollouts.binding(rollout)
    )
    if state == "scheduled":
        return rollout
    rollout = rollouts.start_rollout(rollout, actor=SYSTEM, reason="r")
    if state == "paused":
        rollout = rollouts.pause_rollout(rollout, actor=SYSTEM, reason="r")
    if state in ("last", "completed"):
        rollout = rollouts.advance_rollout(rollout, actor=SYSTEM, reason="r")
    if state == "completed":
        rollout = rollouts.complete_rollout(rollout, actor=SYSTEM, reason="r")
    return Rollout.objects.select_related("environment", "workload", "baseline", "candidate").get(
        pk=rollout.pk
    )
