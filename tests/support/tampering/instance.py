"""A small instance whose log is worth playing with."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.contrib.auth.models import User
from django.db import transaction

from controlplane.access import actions as access
from controlplane.audit import checkpoints
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict
from policies_app import actions as policies
from policies_app.models import Environment, PolicyVersion, Workload
from rollout_app import actions as rollouts
from rollout_app.models import Rollout
from tests.support import builders


def instance() -> None:
    """Two environments, three rollouts, approvals, a pin, keys, roles and a team, in a log with four checkpoints."""
    builders.catalogue()
    people = {name: Actor.of_user(User.objects.create_user(name)) for name in ("anna", "ben", "carl")}
    anna, ben = people["anna"], people["ben"]
    team = access.create_team("support", actor=SYSTEM, members=[User.objects.get(username="anna")])
    production = policies.register_environment("production", actor=SYSTEM, four_eyes=True)
    staging = policies.register_environment("staging", actor=SYSTEM, four_eyes=False)
    for name, role in (("anna", "editor"), ("ben", "approver"), ("carl", "approver"), ("ben", "operator")):
        person = User.objects.get(username=name)
        access.grant_role(person, role, "production", actor=SYSTEM, reason="a colleague")
    gone = access.grant_role(User.objects.get(username="carl"), "viewer", "", actor=SYSTEM, reason="to look")
    access.withdraw_role(gone, actor=SYSTEM, reason="looked")
    checkpoints.make()
    workload = builders.workload("summaries", owner=team)
    first = builders.version(workload, actor=anna)
    for place in (production, staging):
        policies.serve_first(place, first, actor=anna, reason="the first", break_glass=place.four_eyes)
    second, third = builders.version(workload, actor=anna), builders.version(workload, actor=anna)
    access.issue_key("router", "production", "gateway", actor=SYSTEM)
    hers, _ = access.issue_key(
        "admin", "production", "hers", actor=anna, scopes=["editor"], user=User.objects.get(username="anna")
    )
    access.revoke_key(hers.key_id, actor=anna, reason="lost")
    checkpoints.make()
    _rollout(production, workload, second, anna, ben, complete=True)
    _rollout(production, workload, third, anna, ben, complete=False)
    rollouts.propose_rollout(
        staging, workload, second, plan=[{"mode": "full"}], reason="try it", actor=anna, draft=True
    )
    checkpoints.make()
    assignment = policies.served_assignment(staging.pk, workload.pk)
    assignment = policies.pin(assignment, "large", actor=ben, reason="incident 7")
    policies.edit_environment(staging, actor=SYSTEM, reason="year end", freeze_reason="year end")
    policies.edit_workload(workload, actor=SYSTEM, reason="of tickets", description="of tickets")
    with suppress(Conflict):  # a refusal, which is an entry
        rollouts.start_rollout(Rollout.objects.latest("pk").pk, actor=anna, reason="now")
    checkpoints.make()
    policies.unpin(assignment, actor=ben, reason="over")
    access.set_team_members(
        team, [User.objects.get(username=name) for name in ("anna", "carl")], actor=SYSTEM, reason="grown"
    )


def _rollout(
    place: Environment,
    workload: Workload,
    candidate: PolicyVersion,
    anna: Actor,
    ben: Actor,
    *,
    complete: bool,
) -> None:
    plan = [{"mode": "percentage", "share_pcm": 5_000}, {"mode": "full"}]
    rollout = rollouts.propose_rollout(place, workload, candidate, plan=plan, reason="cheaper", actor=anna)
    rollout = rollouts.approve_rollout(
        rollout, actor=ben, reason="looks right", expected_binding=rollouts.binding(rollout)
    )
    rollout = rollouts.start_rollout(rollout, actor=ben, reason="now")
    rollout = rollouts.advance_rollout(rollout, actor=SYSTEM, reason="safe")
    if complete:
        rollouts.complete_rollout(rollout, actor=SYSTEM, reason="done")
    else:
        rollout = rollouts.roll_back_rollout(rollout, actor=SYSTEM, reason="it hurts")
        rollouts.confirm_rolled_back(rollout, actor=SYSTEM, reason="confirmed", readback={})


@contextmanager
def undone() -> Iterator[None]:
    """What is done inside is taken back, in the database and in the file of checkpoints."""
    kept = checkpoints.file_text()
    try:
        with transaction.atomic():
            yield
            transaction.set_rollback(True)
    finally:
        checkpoints.checkpoint_file().write_text(kept)
