"""`add_version`: immutable, numbered, refused as a whole."""

import pytest
from django.db import DatabaseError, transaction

from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import AlreadyExists, PolicyRefused
from pointsman.policy import digest
from policies_app import actions
from policies_app.models import PolicyVersion, Workload
from tests.support import builders

pytestmark = pytest.mark.django_db


@pytest.fixture
def workload() -> Workload:
    builders.catalogue()
    return builders.workload()


def test_it_numbers_versions_per_workload(workload: Workload) -> None:
    other = builders.workload()
    assert [builders.version(w).number for w in (workload, workload, other)] == [1, 2, 1]


def test_it_keeps_the_digest_of_the_exact_text_that_routers_get(workload: Workload) -> None:
    version = builders.version(workload)
    assert version.digest == digest(version.document)


def test_it_records_the_person_behind_a_key(workload: Workload) -> None:
    key = Actor("key", "k1", "ci", user_id="7")
    version = actions.add_version(workload, builders.document(workload), actor=key)
    assert (version.author_label, version.author_user_id) == ("ci", "7")


def test_it_refuses_the_same_content_twice_and_names_the_first(workload: Workload) -> None:
    document = builders.document(workload)
    actions.add_version(workload, document, actor=SYSTEM)
    with pytest.raises(AlreadyExists, match="Version 1") as caught:
        actions.add_version(workload, dict(reversed(document.items())), actor=SYSTEM)
    assert caught.value.extra["version"] == 1


def test_it_names_every_problem_at_once_and_saves_nothing(workload: Workload) -> None:
    document = builders.document(workload) | {"default": "smal", "fallback": ["lrge"]}
    with pytest.raises(PolicyRefused) as caught:
        actions.add_version(workload, document, actor=SYSTEM)
    paths = {problem["path"] for problem in caught.value.extra["problems"] if problem["severity"] == "error"}
    assert {"default", "fallback[0]"} <= paths
    assert not workload.versions.exists()
    assert not Entry.objects.filter(action="version.add").exists()


def test_it_refuses_a_model_that_the_catalogue_does_not_have(workload: Workload) -> None:
    document = builders.document(workload)
    document["models"]["large"] = {"model": "acme/unknown"}
    with pytest.raises(PolicyRefused):
        actions.add_version(workload, document, actor=SYSTEM)


def test_it_writes_one_audit_entry_with_the_digest(workload: Workload) -> None:
    version = builders.version(workload)
    entry = Entry.objects.get(action="version.add")
    assert entry.target_id == f"{workload.name}/1"
    assert version.digest.encode() in bytes(entry.body)


def test_the_database_never_changes_a_version(workload: Workload) -> None:
    version = builders.version(workload)
    for attempt in (
        lambda: PolicyVersion.objects.filter(pk=version.pk).update(canonical="{}"),
        lambda: PolicyVersion.objects.filter(pk=version.pk).delete(),
    ):
        with pytest.raises(DatabaseError), transaction.atomic():
            attempt()
    version.refresh_from_db()
    assert version.digest == digest(version.document)
