"""An invitation that needs a second person is checked again, against its inviter, when it is accepted.

Otherwise invitations created while one person was enough could be saved up as approvers for later.
"""

from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from controlplane.access import actions
from controlplane.access.models import Invitation, Key, Membership
from controlplane.access.permissions import has_role
from controlplane.audit import verification
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import InvitationEnded
from policies_app import actions as policies
from tests.support import builders
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
PASSWORD = "a long enough word"


def person(name: str, *roles: str, environment: str = "") -> Actor:
    user = actions.create_person(name, actor=SYSTEM, reason="new here")
    for role in roles:
        actions.grant_role(user, role, environment, actor=SYSTEM)
    return Actor.of_user(user)


def link(by: Actor, role: str, environment: str) -> str:
    roles = [{"role": role, "environment": environment}]
    _, token = actions.invite("Nina", actor=by, roles=roles, reason="a new colleague")
    return actions.token_hash(token)


def accepted(token_sha256: str, name: str = "nina") -> User:
    return actions.accept_with_password(token_sha256, username=name, password=PASSWORD)


def refuses(token_sha256: str, why: str) -> None:
    with pytest.raises(InvitationEnded, match=why):
        accepted(token_sha256)
    assert not User.objects.filter(username="nina").exists()
    assert Invitation.objects.filter(token_sha256=token_sha256, accepted_at=None).exists()


# --- created while one person was enough ---------------------------------------------------------------------


@pytest.mark.parametrize(("role", "place"), [("approver", "staging"), ("admin", "staging"), ("approver", "")])
def test_four_eyes_switched_on_in_the_meantime_refuse_it(role: str, place: str) -> None:
    staging, root = builders.environment("staging", four_eyes=False), person("root", "admin")
    person("eva", "approver")
    token_sha256 = link(root, role, place)
    policies.edit_environment(staging, actor=root, four_eyes=True)
    refuses(token_sha256, "a second person")


def test_an_approver_added_in_the_meantime_refuses_it() -> None:
    """The first of two links makes the first approver. Then somebody else could agree, so the second is refused."""
    builders.environment("production", four_eyes=True)
    root = person("root", "admin")
    first, second = (link(root, "approver", "production") for _ in range(2))
    assert has_role(accepted(first, "eva"), "approver", "production")
    refuses(second, "a second person")


def test_it_stays_refused_after_that_approver_is_removed() -> None:
    builders.environment("production", four_eyes=True)
    root = person("root", "admin")
    first, second = (link(root, "approver", "production") for _ in range(2))
    eva = accepted(first, "eva")
    actions.withdraw_role(Membership.objects.get(user=eva), actor=root, reason="alone again")
    refuses(second, "a second person")


def test_a_logged_in_person_gets_nothing_either() -> None:
    builders.environment("production", four_eyes=True)
    root = person("root", "admin")
    first, second = (link(root, "approver", "production") for _ in range(2))
    accepted(first, "eva")
    puppet = User.objects.create_user("puppet")
    with pytest.raises(InvitationEnded):
        actions.accept_as(second, puppet)
    assert not Membership.objects.filter(user=puppet).exists()


def test_it_grants_everything_or_nothing() -> None:
    """A link for an editor and an approver does not make an editor, because that is not what it showed."""
    staging, root = builders.environment("staging", four_eyes=False), person("root", "admin")
    person("eva", "approver")
    roles = [{"role": role, "environment": "staging"} for role in ("editor", "approver")]
    _, token = actions.invite("Nina", actor=root, roles=roles, reason="x")
    policies.edit_environment(staging, actor=root, four_eyes=True)
    refuses(actions.token_hash(token), "approver")


def test_roles_that_approve_nothing_are_still_granted() -> None:
    staging, root = builders.environment("staging", four_eyes=False), person("root", "admin")
    person("eva", "approver")
    tokens = [link(root, role, "staging") for role in ("viewer", "editor", "operator")]
    policies.edit_environment(staging, actor=root, four_eyes=True)
    for number, token_sha256 in enumerate(tokens):
        accepted(token_sha256, f"nina{number}")
    assert verification.verify().findings == []


def test_an_invitation_by_the_system_is_not_affected() -> None:
    """A command on the server can make approvers regardless of four eyes; its user can do anything anyway."""
    builders.environment("production", four_eyes=True)
    person("eva", "approver")
    assert has_role(accepted(link(SYSTEM, "approver", "production")), "approver", "production")


# --- created with a key -------------------------------------------------------------------------------------


def by_key(**options: Any) -> tuple[Key, str]:
    """A key that may invite, and the hash of the token of a link that it created."""
    call = Caller("admin", **options)
    body = {"invited": "Nina", "roles": [{"role": "viewer", "environment": "staging"}], "reason": "x"}
    made = call("POST", "invitations", body)
    assert made.status_code == 201, made.content
    return call.key, actions.token_hash(made.json()["link"].rstrip("/").rpartition("/")[2])


def test_a_link_created_with_a_key_is_valid_while_the_key_is() -> None:
    key, token_sha256 = by_key()
    assert has_role(accepted(token_sha256), "viewer", "staging")
    assert Invitation.objects.get().inviter_key == key.key_id
    assert verification.verify().findings == []


@pytest.mark.parametrize("of_a_person", [True, False])
def test_revoking_a_key_ends_its_links(of_a_person: bool) -> None:
    user = User.objects.create_superuser("boss") if of_a_person else None
    key, token_sha256 = by_key(user=user)
    actions.revoke_key(key.key_id, actor=SYSTEM, reason="it was stolen")
    refuses(token_sha256, "key")


def test_a_key_without_a_person_is_not_the_system() -> None:
    """Its link for an approver once stayed valid for anybody, as if a command had created it."""
    builders.environment("production", four_eyes=True)
    call = Caller("admin")
    body = {"invited": "P", "roles": [{"role": "approver", "environment": "production"}], "reason": "x"}
    first = call("POST", "invitations", body).json()["link"]
    person("eva", "approver")
    refuses(actions.token_hash(first.rstrip("/").rpartition("/")[2]), "a second person")


def test_a_link_expires_no_later_than_its_key(settings: Any) -> None:
    settings.CLOCK = "process"
    ends = timezone.now() + timedelta(hours=1)
    key, token_sha256 = by_key()
    Key.objects.filter(pk=key.pk).update(expires_at=ends)  # as a rotation does
    with time_machine.travel(ends + timedelta(seconds=1)):
        refuses(token_sha256, "key")


def test_a_link_shows_the_expiry_of_its_key() -> None:
    ends = timezone.now() + timedelta(hours=1)
    call = Caller("admin")
    Key.objects.filter(pk=call.key.pk).update(expires_at=ends)
    body = {
        "invited": "N",
        "roles": [{"role": "viewer", "environment": "staging"}],
        "days": 30,
        "reason": "x",
    }
    assert call("POST", "invitations", body).status_code == 201
    assert Invitation.objects.get().expires_at == ends


def test_each_refusal_is_one_entry() -> None:
    call = Caller("admin")
    body = {"invited": "N", "roles": [{"role": "viewer", "environment": "staging"}], "reason": "x"}
    link_made = call("POST", "invitations", body).json()["link"]
    actions.revoke_key(call.key.key_id, actor=SYSTEM, reason="it was stolen")
    client = Client()
    client.get("/" + link_made.split("/", 3)[3])
    form = {"username": "nina", "password": PASSWORD, "again": PASSWORD}
    assert client.post("/console/invitation/", form).status_code == 410
    assert Entry.objects.filter(outcome="refused").count() == 1
