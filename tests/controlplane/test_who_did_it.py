"""Who did it: a key is never taken for a person or the engine, and names its person."""

import csv
import io

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import transaction
from django.test import Client
from django.urls import reverse

from controlplane.access import actions
from controlplane.access.actions import invitations
from controlplane.audit import exports, log, sentences
from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor, is_reserved, key_label
from controlplane.core.errors import NameReserved
from tests.support.callers import Caller

pytestmark = pytest.mark.django_db
LOOK_ALIKES = [
    "Pointsman", " POINTSMAN ", "ENGINE", "the engine", "System", "point sman", "P0intsman", "Pointsrnan",
    "\uff30\uff4f\uff49\uff4e\uff54\uff53\uff4d\uff41\uff4e", "P\u043eintsman", "s\u0443stem", "engine\u00a0",
    "e\u0301ngine", "eng\u0131ne", "pointsman-engine",
]  # fmt: skip


@pytest.fixture
def ben() -> User:
    return actions.create_person("ben", actor=SYSTEM, reason="new here", superuser=True)


def record(actor: Actor) -> Entry:
    return log.record(actor=actor, action="team.create", target=("team", "data"))


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_name_that_reads_as_the_engine_is_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize("name", ["ci", "engineer", "systems", "pointsman ci", "system2", "", "maria"])
def test_a_name_that_only_contains_a_reserved_one_is_allowed(name: str) -> None:
    assert not is_reserved(name)


@pytest.mark.parametrize("name", ["Pointsman", "engine", "SYSTEM", "P\u043eintsman"])
def test_neither_a_key_nor_an_invitation_can_have_a_name_of_the_engine(name: str, ben: User) -> None:
    with pytest.raises(NameReserved) as refused:
        actions.issue_key("admin", "", name, actor=SYSTEM, scopes=["viewer"])
    assert refused.value.code == "name_reserved"
    assert refused.value.extra["problems"][0]["path"] == "label"
    with pytest.raises(NameReserved):
        invitations.invite(
            name, actor=Actor.of_user(ben), reason="x", roles=[{"environment": "", "role": "viewer"}]
        )


@pytest.mark.parametrize("name", ["Pointsman", "engine", "SYSTEM", "P0intsman"])
def test_a_person_cannot_have_a_name_of_the_engine(name: str) -> None:
    with pytest.raises(NameReserved):
        actions.create_person(name, actor=SYSTEM, reason="x")
    with pytest.raises(NameReserved):
        actions.refuse_bad_username(name)
    with pytest.raises(NameReserved):
        actions.accept_with_password("0" * 64, username="eve", full_name=name, password="a long good word")
    assert not User.objects.exists()


def test_the_api_refuses_it_with_a_stable_code(ben: User) -> None:
    answer = Caller("admin", user=ben)(
        "POST", "keys", {"kind": "admin", "label": "Pointsman", "scopes": ["viewer"], "reason": "x"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "name_reserved")


def test_a_key_is_named_with_its_person(ben: User) -> None:
    assert (
        Caller("admin", user=ben)("POST", "teams", {"name": "data", "members": [], "reason": "x"}).status_code
        == 201
    )
    entry = Entry.objects.latest("seq")
    assert sentences.told([entry])[0][1] == "key script of ben created team data"


def test_a_key_of_nobody_is_named_as_a_key() -> None:
    assert Caller("admin")("POST", "teams", {"name": "data", "members": [], "reason": "x"}).status_code == 201
    assert sentences.told([Entry.objects.latest("seq")])[0][1] == "key script created team data"


def test_the_longest_label_fits_its_column() -> None:
    label = key_label("x" * 120, "p" * 150, is_agent=True)
    assert len(label) == 200
    assert label.endswith(" of " + "p" * 150)


@pytest.mark.parametrize(
    ("actor", "said"),
    [
        (Actor("key", "k1", "Pointsman"), "key Pointsman created team data"),
        (Actor("key", "k1", "ben"), "key ben created team data"),
        (Actor("user", "7", "engine", "7"), "user engine created team data"),
        (SYSTEM, "Pointsman created team data"),
    ],
)
def test_entries_of_older_versions_are_described_correctly(actor: Actor, said: str) -> None:
    with transaction.atomic():
        assert sentences.told([record(actor)])[0][1] == said


def test_its_entry_names_the_person_and_the_key(ben: User, client: Client) -> None:
    script = Caller("admin", user=ben)
    script("POST", "teams", {"name": "data", "members": [], "reason": "x"})
    client.force_login(ben)
    page = client.get(reverse("console:entry", args=[Entry.objects.latest("seq").seq])).content.decode()
    assert "key script of ben created team data" in page
    assert "<dt>Person</dt><dd>ben" in page
    assert script.key.key_id in page


def test_filtering_by_a_person_finds_what_their_keys_did(ben: User, client: Client) -> None:
    """Even if the entry names only the key, as in entries of older versions."""
    key = Caller("admin", user=ben).key
    with transaction.atomic():
        record(Actor("key", key.key_id, "script", str(ben.pk)))
        record(Actor("key", "another", "script", None))
    client.force_login(ben)
    found = client.get(reverse("console:audit"), {"actor": "ben", "action": "team.create"}).context["listed"]
    assert [entry.actor_id for entry, *_ in found] == [key.key_id]


def test_the_csv_has_the_person_in_its_last_column(ben: User) -> None:
    Caller("admin", user=ben)("POST", "teams", {"name": "data", "members": [], "reason": "x"})
    Caller("admin")("POST", "teams", {"name": "more", "members": [], "reason": "x"})
    rows = list(csv.DictReader(io.StringIO("".join(exports.lines(Entry.objects.all(), "csv")))))
    assert list(rows[0])[-1] == "person"
    by = [(row["actor_label"], row["person"]) for row in rows if row["action"] == "team.create"]
    assert by == [("key script of ben", "ben"), ("key script", "")]
    call_command("audit", "verify", "--without-file")
