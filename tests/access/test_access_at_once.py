"""Changes to people, keys and teams at the same moment: none deadlocks, and no key outlives a deactivation."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.db import connection

from controlplane.access import actions
from controlplane.access.authentication import admin_key
from controlplane.access.models import Key, Team
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import Conflict
from tests.support import builders
from tests.support.behind_the_head import behind_the_head

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ann() -> User:
    actions.create_person("root", actor=SYSTEM, reason="the admin who stays", superuser=True)
    person = actions.create_person("ann", actor=SYSTEM, reason="new")
    actions.grant_role(person, "operator", "", actor=SYSTEM, reason="new")
    return person


def _key(ann: User) -> Key:
    return actions.issue_key("admin", "", "deploy", actor=Actor.of_user(ann), user=ann, scopes=["operator"])[
        0
    ]


def _deactivate(ann: User) -> Callable[[], object]:
    return lambda: actions.deactivate_person(ann, actor=SYSTEM, reason="left")


def _is_out_for_good(ann: User) -> bool:
    """Whether the account is deactivated, and no key of it is valid once it is activated again."""
    ann.refresh_from_db()
    return not ann.is_active and not Key.objects.filter(user=ann, revoked_at=None).exists()


@pytest.mark.parametrize("first", ["deactivation", "key"])
@pytest.mark.parametrize("change", ["issue", "rotate", "revoke"])
def test_a_deactivation_and_a_change_of_a_key_never_deadlock(ann: User, change: str, first: str) -> None:
    key, other = _key(ann), _key(ann)
    by = Actor.of_user(ann)
    works: dict[str, Callable[[], object]] = {
        "issue": lambda: _key(ann),
        "rotate": lambda: actions.rotate_key(key.key_id, actor=by),
        "revoke": lambda: actions.revoke_key(other.key_id, actor=by, reason="lost"),
    }
    order = [_deactivate(ann), works[change]]
    errors = behind_the_head(*(order if first == "deactivation" else order[::-1]))
    assert all(error is None or isinstance(error, Conflict) for error in errors)
    assert _is_out_for_good(ann)
    assert Entry.objects.filter(action="key.revoke").count() == Key.objects.filter(user=ann).count()


def test_nobody_makes_a_key_for_a_deactivated_person(ann: User) -> None:
    key = _key(ann)
    actions.deactivate_person(ann, actor=SYSTEM, reason="left")
    with pytest.raises(Conflict, match="deactivated"):
        actions.issue_key("admin", "", "for later", actor=SYSTEM, user=ann, scopes=["operator"])
    with pytest.raises(Conflict):
        actions.rotate_key(key.key_id, actor=Actor.of_user(ann))
    assert _is_out_for_good(ann)


def test_a_key_is_accepted_while_it_is_changed(ann: User) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite locks no rows")
    key, text = actions.issue_key("admin", "", "deploy", actor=SYSTEM, scopes=["operator"])
    let_in: list[Key] = []
    errors = behind_the_head(
        lambda: actions.rotate_key(key.key_id, actor=SYSTEM),
        lambda: let_in.append(admin_key(text)),
        lambda: actions.create_team(f"{len(let_in)}-let-in", actor=SYSTEM),
    )
    assert (errors, Team.objects.get().name) == ([None] * 3, "1-let-in")


def _invited(*teams: Team, by: Actor = SYSTEM) -> str:
    roles = [{"environment": "", "role": role} for role in ("editor", "viewer")]
    _, token = actions.invite("ben", actor=by, reason="new", roles=roles, teams=[team.name for team in teams])
    return actions.token_hash(token)


@pytest.mark.parametrize("is_new", [True, False])
def test_an_invitation_and_a_change_of_its_team_never_deadlock(ann: User, is_new: bool) -> None:
    team = builders.team()
    invited = _invited(team)
    ben = User(username="ben") if is_new else actions.create_person("ben", actor=SYSTEM, reason="new")
    errors = behind_the_head(
        lambda: actions.accept_as(invited, ben),
        lambda: actions.set_team_members(team, [ann], actor=SYSTEM, seen=[]),
    )
    assert errors == [None, None]
    assert set(team.members.values_list("username", flat=True)) == {"ann", "ben"}


def test_an_invitation_and_a_grant_of_the_same_role_never_deadlock(ann: User) -> None:
    invited, ben = _invited(), actions.create_person("ben", actor=SYSTEM, reason="new")
    errors = behind_the_head(
        lambda: actions.accept_as(invited, ben),
        lambda: actions.grant_role(ben, "viewer", "", actor=SYSTEM, reason="new"),
    )
    assert all(error is None or isinstance(error, Conflict) for error in errors)
    assert set(ben.memberships.values_list("role", flat=True)) == {"editor", "viewer"}
