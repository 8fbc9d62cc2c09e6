"""Roles: where they hold, what they imply, and how a key limits its person's roles."""

import pytest
from django.contrib.auth.models import AnonymousUser, User

from controlplane.access import actions
from controlplane.access.models import Key, Membership, Role, Team
from controlplane.access.permissions import (
    ANYWHERE,
    has_role,
    holders,
    may_edit_workload,
    require_role,
    roles_held,
    visible_environments,
)
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import RoleMissing

pytestmark = pytest.mark.django_db


def person(name: str = "ann", **roles: str) -> User:
    """Create a person with roles: `person(staging="editor")`; `everywhere` means every environment."""
    made = User.objects.create_user(name)
    for environment, role in roles.items():
        actions.grant_role(made, role, "" if environment == "everywhere" else environment, actor=SYSTEM)
    return made


def admin_key(user: User | None, *scopes: str, environment: str = "") -> Key:
    return actions.issue_key("admin", environment, "k", actor=SYSTEM, scopes=scopes, user=user)[0]


def test_a_role_holds_where_it_was_given() -> None:
    ann = person(staging="editor")
    assert has_role(ann, Role.EDITOR, "staging")
    assert not has_role(ann, Role.EDITOR, "production")
    assert has_role(ann, Role.EDITOR, ANYWHERE)
    assert not has_role(ann, Role.EDITOR, "")


def test_roles_imply_only_viewer_and_admin_implies_all() -> None:
    ann, bob = person(staging="approver"), person("bob", staging="admin")
    assert has_role(ann, Role.VIEWER, "staging")
    assert not has_role(ann, Role.EDITOR, "staging")
    assert all(has_role(bob, role, "staging") for role in Role)


@pytest.mark.parametrize("place", ["everywhere", "staging"])
@pytest.mark.parametrize("held", Role.values)
def test_pages_and_actions_give_the_same_answer_about_a_role(held: str, place: str) -> None:
    ann = person(**{place: held})
    holds = roles_held(ann)
    for asked in Role.values:
        implied = asked in (held, "viewer") or held == "admin"
        for where in ("", "staging", "production", ANYWHERE):
            expected = implied and (place == "everywhere" or where in ("staging", ANYWHERE))
            assert holds(asked, where) is has_role(ann, asked, where) is expected, (asked, where)
            if where is not ANYWHERE:
                assert holders(asked, [str(ann.pk)])(str(ann.pk), where) is expected, (asked, where)


@pytest.mark.parametrize(("active", "superuser"), [(True, True), (False, True), (False, False)])
def test_pages_and_actions_agree_about_superusers_and_closed_accounts(active: bool, superuser: bool) -> None:
    ann = person(everywhere="admin")
    ann.is_active, ann.is_superuser = active, superuser
    ann.save()
    for role in Role.values:
        assert (
            roles_held(ann)(role, "")
            is has_role(ann, role, "")
            is has_role(Actor.of_user(ann), role, "")
            is holders(role, [str(ann.pk)])(str(ann.pk), "production")
            is active
        )


def test_a_role_everywhere_holds_in_each_environment() -> None:
    ann = person(everywhere="operator")
    assert has_role(ann, Role.OPERATOR, "production")
    assert has_role(ann, Role.OPERATOR, "")
    assert visible_environments(ann) is None


def test_a_withdrawn_role_is_lost_at_once() -> None:
    ann = person(staging="editor")
    actor = Actor.of_user(ann)
    assert has_role(actor, Role.EDITOR, "staging")
    actions.withdraw_role(Membership.objects.get(), actor=SYSTEM)
    assert not has_role(actor, Role.EDITOR, "staging")


def test_the_system_and_superusers_hold_every_role_and_strangers_none() -> None:
    root = User.objects.create_superuser("root")
    assert has_role(SYSTEM, Role.ADMIN, "")
    assert has_role(root, Role.APPROVER, "production")
    assert not has_role(AnonymousUser(), Role.VIEWER, ANYWHERE)
    assert not has_role(Actor("router", "r-1", "r-1"), Role.VIEWER, ANYWHERE)


def test_an_inactive_person_holds_none() -> None:
    ann = person(staging="editor")
    key = admin_key(ann, "editor", environment="staging")
    User.objects.update(is_active=False)
    assert not has_role(Actor.of_user(ann), Role.VIEWER, "staging")
    assert not has_role(Key.objects.get(pk=key.pk), Role.EDITOR, "staging")


def test_a_key_has_only_the_scopes_that_its_person_holds() -> None:
    ann = person(everywhere="editor")
    key = admin_key(ann, "editor", "approver", environment="staging")
    assert has_role(key, Role.EDITOR, "staging")
    assert has_role(Actor("key", key.key_id, "k", str(ann.pk)), Role.EDITOR, "staging")
    assert not has_role(key, Role.APPROVER, "staging")  # in the key's scopes, but she does not hold it
    assert not has_role(key, Role.EDITOR, "production")  # she holds it, but it is not in the key's scopes
    Membership.objects.all().delete()
    assert not has_role(key, Role.EDITOR, "staging")


def test_a_key_sees_no_more_than_its_environment() -> None:
    ann = person(staging="viewer", production="viewer")
    assert visible_environments(admin_key(ann, "viewer", environment="staging")) == {"staging"}
    assert visible_environments(admin_key(ann, "viewer")) == {"staging", "production"}


def test_a_router_key_has_no_role() -> None:
    key, _ = actions.issue_key("router", "production", "r", actor=SYSTEM)
    assert not has_role(key, Role.VIEWER, "production")


def test_the_refusal_names_the_role_and_the_environment() -> None:
    with pytest.raises(RoleMissing, match="approver in production") as refused:
        require_role(person(), Role.APPROVER, "production")
    assert refused.value.as_problem()["role"] == "approver"


def test_only_the_owning_team_and_admins_of_all_edit_a_workload() -> None:
    ann, bob, carl = (
        person(staging="editor"),
        person("bob", staging="editor"),
        person("carl", everywhere="admin"),
    )
    team = actions.create_team("support", actor=SYSTEM, members=[ann])
    assert may_edit_workload(ann, team)
    assert not may_edit_workload(bob, team)
    assert may_edit_workload(carl, team)


def test_a_member_of_the_team_without_the_role_may_not_edit() -> None:
    ann = person(staging="viewer")
    team = actions.create_team("support", actor=SYSTEM, members=[ann])
    assert not may_edit_workload(ann, team)


def test_a_key_without_a_person_edits_only_what_it_was_issued_for() -> None:
    team = Team.objects.create(name="support")
    key, _ = actions.issue_key("admin", "", "ci", actor=SYSTEM, scopes=["editor"], workloads=["summaries"])
    assert may_edit_workload(key, team, "summaries")
    assert not may_edit_workload(key, team, "answers")
