"""A small instance for the tampering tests: rows of every kind that the audit log describes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP
from allauth.mfa.webauthn.internal.auth import WebAuthn
from allauth.socialaccount.models import SocialAccount
from django.contrib.auth.models import User
from django.db import transaction

from controlplane.access import actions as access
from controlplane.access import change_requests
from controlplane.audit import checkpoints
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict
from controlplane.notifications import actions as notifications
from policies_app import actions as policies
from policies_app.catalogue import actions as catalogue
from policies_app.four_eyes import actions as second_person
from policies_app.models import Environment, Model, PolicyVersion, Workload
from rollout_app import actions as rollouts
from rollout_app.models import Rollout
from tests.support import builders

PLAN = [{"mode": "percentage", "share_pcm": 5_000}, {"mode": "full"}]


def instance() -> None:
    """Create two environments, four rollouts, approvals, a pin, keys, people, requests, receivers and checkpoints."""
    builders.catalogue()
    people = {name: _person(name) for name in ("anna", "ben", "carl", "emma", "root")}
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
    _people()
    checkpoints.make()
    _settings(workload, anna)
    _requests(production, people)
    _rollout(production, workload, second, anna, ben, complete=True)
    _rollout(production, workload, third, anna, ben, complete=False)
    running = rollouts.propose_rollout(staging, workload, third, plan=PLAN, reason="try it", actor=anna)
    rollouts.start_rollout(running, actor=SYSTEM, reason="now")
    rollouts.propose_rollout(
        staging, workload, second, plan=PLAN[1:], reason="try it", actor=anna, draft=True
    )
    checkpoints.make()
    assignment = policies.served_assignment(staging.pk, workload.pk)
    assignment = policies.pin(assignment, "large", actor=ben, reason="incident 7")
    policies.edit_environment(staging, actor=SYSTEM, reason="year end", freeze_reason="year end")
    policies.edit_workload(workload, actor=SYSTEM, reason="of tickets", description="of tickets")
    with suppress(Conflict):  # a refused attempt, which writes an entry
        rollouts.start_rollout(Rollout.objects.latest("pk").pk, actor=anna, reason="now")
    checkpoints.make()
    policies.unpin(assignment, actor=ben, reason="over")
    access.set_team_members(
        team, [User.objects.get(username=name) for name in ("anna", "carl")], actor=SYSTEM, reason="grown"
    )


def _person(name: str) -> Actor:
    person = access.create_person(
        name, actor=SYSTEM, reason="one of us", password="correct horse 7", superuser=name == "root"
    )
    return Actor.of_user(person)


def _people() -> None:
    """Create an accepted invitation (dora, with a second factor), a pending one (Emil), a reactivated account (carl), a
    connected provider account and a receiver.
    """
    given = [{"environment": "staging", "role": "viewer"}]
    came, _ = access.invite("Dora", roles=given, actor=SYSTEM, reason="new here")
    dora = access.accept_with_password(came.token_sha256, username="dora", password="a long enough one 7")
    access.invite("Emil", roles=given, actor=SYSTEM, reason="new here")
    carl = User.objects.get(username="carl")
    access.deactivate_person(carl, actor=SYSTEM, reason="left")
    access.activate_person(carl, actor=SYSTEM, reason="came back")
    with access.account_change(dora, "second_factor.add", actor=Actor.of_user(dora)):
        TOTP.activate(dora, "JBSWY3DPEHPK3PXP")
        RecoveryCodes.activate(dora)
        WebAuthn.add(dora, "her laptop", {"id": "a1", "response": {"attestationObject": "o2Nm"}})
    with access.account_change(dora, "provider.connect", actor=Actor.of_user(dora)):
        SocialAccount.objects.create(user=dora, provider="company", uid="dora@idp")
    receiver, _ = notifications.add_receiver("hook", "webhook", "https://hooks.example.org/a", actor=SYSTEM)
    notifications.edit_receiver(
        receiver, expected=None, actor=SYSTEM, reason="fewer", environments=["production"]
    )


def _settings(workload: Workload, anna: Actor) -> None:
    """Create a plan, a margin and a bound on one metric, and a changed price."""
    rollouts.add_plan("ours", [{"mode": "full"}], actor=anna, reason="our own")
    rollouts.edit_plan("ours", actor=anna, description="at once", reason="in words")
    rollouts.set_guardrail(workload, "quality", actor=SYSTEM, reason="stricter", margin=0.01)
    rollouts.set_guardrail(workload, "quality", actor=SYSTEM, reason="at least", bound=0.5)
    rollouts.set_guardrail(workload, "quality", actor=SYSTEM, reason="at least", bound=0.6)
    catalogue.edit_model(
        Model.objects.order_by("pk")[0],
        actor=SYSTEM,
        reason="more expensive now",
        input_nusd_per_mtok=160_000_000,
    )


def _requests(production: Environment, people: dict[str, Actor]) -> None:
    """Create an approved and a withdrawn request for a role, and a waiting one to turn four eyes off."""
    dora = User.objects.get(username="dora")
    for role in ("approver", "admin"):
        asked = access.request_role(dora, role, "production", actor=people["root"], reason="one more")
        if role == "approver":
            second_person.approve_change(
                asked, actor=people["ben"], reason="yes", expected_binding=change_requests.binding(asked)
            )
        else:
            change_requests.withdraw(asked, actor=people["root"], reason="no need")
    second_person.request_four_eyes_off(production, actor=people["root"], reason="too slow")


def _rollout(
    place: Environment,
    workload: Workload,
    candidate: PolicyVersion,
    anna: Actor,
    ben: Actor,
    *,
    complete: bool,
) -> None:
    rollout = rollouts.propose_rollout(place, workload, candidate, plan=PLAN, reason="cheaper", actor=anna)
    rollout = rollouts.approve_rollout(
        rollout, actor=ben, reason="looks right", expected_binding=rollouts.binding(rollout)
    )
    if complete:
        rollout = rollouts.withdraw_approval(rollout, actor=ben, reason="a second look")
        rollout = rollouts.amend_rollout(rollout, actor=anna, reason="as told", plan=PLAN)
        rollout = rollouts.approve_rollout(
            rollout, actor=ben, reason="now it is", expected_binding=rollouts.binding(rollout)
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
    """Undo all changes made inside, in the database and in the checkpoint file."""
    kept = checkpoints.file_text()
    try:
        with transaction.atomic():
            yield
            transaction.set_rollback(True)
    finally:
        checkpoints.checkpoint_file().write_text(kept)
