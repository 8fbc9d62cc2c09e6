"""If two admins remove each other at the same moment, one of them stays, on both databases."""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress

import pytest
from django.contrib.auth.models import User
from django.db import connection

from controlplane.access import actions
from controlplane.access.actions import admins, roles
from controlplane.access.models import Membership
from controlplane.access.permissions import has_role
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import LastAdmin, PointsmanError, RoleMissing

pytestmark = pytest.mark.django_db(transaction=True)
people = sys.modules["controlplane.access.actions.people"]  # the package has a function of that name
Taking = Callable[[User, User], object]  # away, by


def _deactivated(away: User, by: User) -> object:
    return actions.deactivate_person(away, actor=Actor.of_user(by), reason="a coup")


def _superuser_no_more(away: User, by: User) -> object:
    return actions.withdraw_superuser(away, actor=Actor.of_user(by), reason="a coup")


def _role_taken(away: User, by: User) -> None:
    held = Membership.objects.get(user=away, role="admin", environment="")
    actions.withdraw_role(held, actor=Actor.of_user(by), reason="a coup")


def _admin(name: str, taking: Taking) -> User:
    """An admin of the kind that `taking` removes; a superuser gets no role."""
    superuser = taking is _superuser_no_more
    person = actions.create_person(name, actor=SYSTEM, reason="an admin", superuser=superuser)
    if not superuser:
        actions.grant_role(person, "admin", "", actor=SYSTEM, reason="an admin")
    return person


@pytest.fixture
def both_have_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one waits, after seeing that an admin is left, until the other has seen it too (or is blocked by a lock)."""
    looked = threading.Barrier(2)

    def wait(others: object) -> None:
        admins.keep_an_admin(others)  # type: ignore[arg-type]
        with suppress(threading.BrokenBarrierError):
            looked.wait(0.5)

    monkeypatch.setattr(people, "keep_an_admin", wait)
    monkeypatch.setattr(roles, "keep_an_admin", wait)


TAKINGS = [_deactivated, _role_taken, _superuser_no_more]
PAIRS = [(one, other) for at, one in enumerate(TAKINGS) for other in TAKINGS[at:]]


@pytest.mark.usefixtures("both_have_looked")
@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda taking: taking.__name__.strip("_"))
def test_one_of_two_admins_who_remove_each_other_stays(one: Taking, other: Taking) -> None:
    ann, ben = _admin("ann", other), _admin("ben", one)
    refused: list[PointsmanError] = []
    start = threading.Barrier(2)

    def run(taking: Taking, away: User, by: User) -> None:
        try:
            start.wait()
            taking(away, by)
        except PointsmanError as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=each) for each in ((one, ben, ann), (other, ann, ben))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left = [user.username for user in User.objects.all() if has_role(user, "admin", "")]
    assert len(left) == 1 and len(refused) == 1
    assert isinstance(refused[0], LastAdmin | RoleMissing)
    assert Entry.objects.filter(outcome="refused").count() == 1


def test_a_removal_counts_for_the_one_who_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a third admin, nobody is the last. But an admin who has just been removed cannot remove anybody."""
    ann, ben, _ = (_admin(name, _deactivated) for name in ("ann", "ben", "third"))
    held = admins.hold_admins

    def taken_while_it_waits() -> None:
        monkeypatch.setattr(people, "hold_admins", held)
        _deactivated(ben, ann)
        held()

    monkeypatch.setattr(people, "hold_admins", taken_while_it_waits)
    with pytest.raises(RoleMissing):
        _deactivated(ann, ben)
    assert User.objects.get(pk=ann.pk).is_active
