"""Snapshots in a bucket: the gateway's exact bytes, never older over newer, and no harm if the bucket fails."""

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.conf import settings as configured
from django.db import connection

from controlplane.core import clock, signing
from controlplane.core.actors import SYSTEM
from controlplane.server import checks
from pointsman.sync.signature import PublicKeys
from policies_app import actions
from policies_app.models import Assignment, Environment, Published, Revision, new_epoch
from policies_app.snapshots import build, cache, object_store, publish
from policies_app.snapshots.metrics import PublishedFigures
from policies_app.snapshots.object_store import BucketError
from tests.support import append_only, builders
from tests.support.object_store import REGION, S3

pytestmark = pytest.mark.django_db


@pytest.fixture
def assignment(settings: Any, s3: S3) -> Assignment:
    """Serve something in an instance with a bucket."""
    settings.SNAPSHOT_BUCKET = s3.bucket()
    settings.SNAPSHOT_PREFIX = "eu"
    settings.AWS_S3_ENDPOINT_URL, settings.AWS_S3_REGION_NAME = s3.url, REGION
    return builders.served(builders.environment(), builders.workload())


@pytest.fixture
def place(assignment: Assignment) -> str:
    """Return the key of the environment's snapshot, as documented."""
    return f"{configured.SNAPSHOT_BUCKET}/eu/{assignment.environment.name}/router/v1/snapshot"


def served_bytes(environment: Environment) -> bytes:
    cached = cache.read_environment(cache.read_headers()[environment.name], None)
    assert cached is not None
    return build.signed_body(cached, publish.EVERYTHING).plain


def pin(assignment: Assignment, alias: str = "large") -> None:
    actions.pin(assignment, alias, actor=SYSTEM, reason="now")


def row(assignment: Assignment) -> Published:
    return Published.objects.get(environment=assignment.environment)


def in_time_for_another_look(assignment: Assignment) -> None:
    then = clock.now() - publish.CHECKED_AFTER
    Published.objects.filter(environment=assignment.environment).update(checked_at=then)


# --- what is published ---------------------------------------------------------------------------------


def test_it_publishes_the_bytes_that_the_gateway_serves(assignment: Assignment, place: str, s3: S3) -> None:
    assert publish.sweep() == 1
    answer = s3.get(place)
    assert answer.content == served_bytes(assignment.environment)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "public, max-age=5, stale-if-error=604800"
    assert "content-encoding" not in answer.headers
    keys = PublicKeys(signing.public_key_text())
    keys.verify(answer.content, answer.headers["x-amz-meta-pointsman-signature"])
    etag = answer.headers["x-amz-meta-pointsman-etag"]
    assert etag.startswith(f'"{assignment.environment.epoch}.1.')
    assert answer.headers["x-amz-meta-pointsman-revision"] == "1"


def test_it_publishes_each_change_and_nothing_twice(assignment: Assignment, place: str, s3: S3) -> None:
    assert [publish.sweep(), publish.sweep()] == [1, 0]
    pin(assignment)
    assert [publish.sweep(), publish.sweep()] == [1, 0]
    assert s3.get(place).json()["workloads"][assignment.workload.name]["pin"]["model"] == "large"
    assert row(assignment).revision == 2


def test_it_publishes_a_change_that_draws_no_revision(assignment: Assignment, place: str, s3: S3) -> None:
    publish.sweep()
    actions.edit_environment(assignment.environment, actor=SYSTEM, poll_interval_ms=30_000)
    assert publish.sweep() == 1
    assert s3.get(place).json()["poll_interval_ms"] == 30_000


def test_it_signs_again_when_the_key_changes(
    assignment: Assignment, place: str, s3: S3, settings: Any
) -> None:
    publish.sweep()
    before = s3.get(place).headers["x-amz-meta-pointsman-signature"]
    both = [signing.new_private_text(), *signing.private_texts()]
    settings.SIGNING_KEY = ",".join(both)
    assert publish.sweep() == 1
    after = s3.get(place).headers["x-amz-meta-pointsman-signature"]
    assert after.endswith(before)
    assert f"keyid={signing.key_id()}" in after


def test_it_publishes_every_environment_separately(assignment: Assignment, s3: S3) -> None:
    other = builders.served(builders.environment(), builders.workload())
    assert publish.sweep() == 2
    answers = [
        s3.get(f"{configured.SNAPSHOT_BUCKET}/{publish.key_of(each.environment.name)}").json()
        for each in (assignment, other)
    ]
    assert [list(answer["workloads"]) for answer in answers] == [
        [assignment.workload.name],
        [other.workload.name],
    ]


def test_it_keeps_the_snapshot_under_an_environments_old_name(
    assignment: Assignment, place: str, s3: S3
) -> None:
    """Routers may still poll it, so no published snapshot is ever deleted."""
    publish.sweep()
    Environment.objects.filter(pk=assignment.environment.pk).update(name="renamed")
    assert publish.sweep() == 1
    assert s3.get(place).json()["environment"] == assignment.environment.name
    assert s3.get(place.replace(assignment.environment.name, "renamed")).json()["environment"] == "renamed"


# --- an older one never replaces a newer --------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Run `happens` once, between this process's read of the environment and its write."""
    answered, pending = build.signed_body, [happens]

    def answer(*arguments: Any) -> Any:
        built = answered(*arguments)
        if pending:
            pending.pop()()
        return built

    monkeypatch.setattr(build, "signed_body", answer)


def test_a_late_writer_changes_nothing(
    assignment: Assignment, place: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish.sweep()
    pin(assignment)
    written: list[str] = []

    def another_process_is_faster() -> None:
        pin(assignment, "small")
        Published.objects.update(
            claimed_until=clock.now()
        )  # this one was held up until its claim had run out
        header = cache.read_headers()[assignment.environment.name]
        assert publish._publish(header)
        written.append(s3.get(place).headers["etag"])

    meanwhile(monkeypatch, another_process_is_faster)
    publish.sweep()
    assert s3.get(place).json()["revision"] == 3
    assert row(assignment).revision == 3
    assert row(assignment).claim is None
    assert publish.sweep() == 0


def test_two_first_publications_agree(
    assignment: Assignment, place: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`If-None-Match: *`: there was no object, and now there is one."""

    def another_process_is_faster() -> None:
        pin(assignment)
        Published.objects.update(claimed_until=clock.now())
        assert publish._publish(cache.read_headers()[assignment.environment.name])

    meanwhile(monkeypatch, another_process_is_faster)
    publish.sweep()
    assert s3.get(place).json()["revision"] == 2


def test_it_leaves_alone_what_another_process_is_publishing(
    assignment: Assignment, place: str, s3: S3
) -> None:
    environment, later = assignment.environment, clock.now() + publish.CLAIM
    Published.objects.create(environment=environment, claim=new_epoch(), claimed_until=later)
    assert publish.sweep() == 0
    assert s3.get(place).status_code == 404
    Published.objects.update(claimed_until=clock.now())
    assert publish.sweep() == 1


def test_an_instance_behind_the_bucket_reports_it_and_writes_nothing(
    assignment: Assignment, place: str, s3: S3
) -> None:
    pin(assignment)
    publish.sweep()
    before = s3.get(place)
    # Restored from a backup made before the pin, without post_restore.
    Environment.objects.filter(pk=assignment.environment.pk).update(revision=1)
    assert publish.sweep() == 0
    assert s3.get(place).headers["etag"] == before.headers["etag"]
    assert "holds a later snapshot" in row(assignment).error
    # A new epoch makes it deliberate.
    Environment.objects.filter(pk=assignment.environment.pk).update(epoch=new_epoch())
    Published.objects.update(retry_at=None)
    assert publish.sweep() == 1
    assert s3.get(place).json()["revision"] == 1


def test_an_instance_restored_and_changed_since_writes_nothing(
    assignment: Assignment, place: str, s3: S3
) -> None:
    """Its revisions have numbers that were published before, with another content."""
    backup = Assignment.objects.get(pk=assignment.pk)
    pin(assignment)
    publish.sweep()
    with append_only.lifted():
        Revision.objects.filter(environment=assignment.environment, number__gt=1).delete()
    Environment.objects.filter(pk=assignment.environment.pk).update(revision=1)
    backup.save()
    Published.objects.update(revision=1, tag="of the backup")
    for alias in ("small", "large"):
        pin(backup, alias)
        Published.objects.update(retry_at=None)
        assert publish.sweep() == 0
        assert "another revision 2 than this instance made" in row(assignment).error
    assert s3.get(place).json()["revision"] == 2


def test_an_object_overwritten_or_deleted_by_others_is_restored(
    assignment: Assignment, place: str, s3: S3
) -> None:
    publish.sweep()
    right, (name, _, key) = s3.get(place), place.partition("/")
    s3.client().put_object(
        Bucket=name,
        Key=key,
        Body=b"{}",
        Metadata={"pointsman-etag": right.headers["x-amz-meta-pointsman-etag"]},
    )
    assert publish.sweep() == 0  # the bucket is checked once a minute
    in_time_for_another_look(assignment)
    assert publish.sweep() == 1
    assert s3.get(place).content == right.content
    s3.client().delete_object(Bucket=name, Key=key)
    in_time_for_another_look(assignment)
    assert publish.sweep() == 1
    assert s3.get(place).content == right.content
    in_time_for_another_look(assignment)
    assert publish.sweep() == 0


def test_a_store_without_conditional_writes_gets_unconditional_ones(
    assignment: Assignment, place: str, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = object_store.Bucket._ask

    def older(self: object_store.Bucket, call: str, key: str, **parameters: Any) -> Any:
        if {"IfMatch", "IfNoneMatch"} & parameters.keys():
            error = BucketError("NotImplemented")
            error.status = 501
            raise error
        return ask(self, call, key, **parameters)

    monkeypatch.setattr(object_store.Bucket, "_ask", older)
    assert publish.sweep() == 1
    assert s3.get(place).json()["revision"] == 1


# --- a bucket that fails -------------------------------------------------------------------------------


def test_an_unreachable_bucket_is_retried_later_and_logged_once(
    assignment: Assignment, place: str, s3: S3, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "RETRY_FIRST_S", 30)  # longer than the next lines take
    s3.stop()
    try:
        assert publish.sweep() == 0
        first = row(assignment)
        assert "EndpointConnectionError" in first.error
        assert first.retry_at is not None
        assert first.retry_at > clock.now()
        assert publish.sweep() == 0
        assert row(assignment).failures == 1  # not before its time
        for _ in range(8):
            Published.objects.update(retry_at=None)
            publish.sweep()
        last = row(assignment)
        assert (last.failures, last.failing_since) == (9, first.failing_since)
        assert last.retry_at is not None
        assert timedelta(seconds=25) < last.retry_at - clock.now() <= timedelta(seconds=60)
        assert caplog.text.count("cannot be published") == 1
    finally:
        s3.start()
    Published.objects.update(retry_at=None)
    assert publish.sweep() == 1
    assert (row(assignment).failures, row(assignment).error, row(assignment).failing_since) == (0, "", None)


def test_times_written_by_a_wrong_clock_do_not_delay_it(assignment: Assignment, place: str) -> None:
    publish.sweep()
    tomorrow = clock.now() + timedelta(days=1)
    Published.objects.update(checked_at=tomorrow, retry_at=tomorrow, claimed_until=tomorrow)
    pin(assignment)
    assert publish.sweep() == 1


def test_a_bucket_that_does_not_exist_is_named(assignment: Assignment, settings: Any) -> None:
    settings.SNAPSHOT_BUCKET = "nowhere"
    assert publish.sweep() == 0
    assert "NoSuchBucket" in row(assignment).error


def test_one_failing_environment_does_not_block_the_others(
    assignment: Assignment, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = builders.served(builders.environment(), builders.workload())
    answered = build.signed_body

    def answer(cached: Any, query: Any) -> Any:
        if cached.header.name == assignment.environment.name:
            raise ZeroDivisionError("nobody thought of it")
        return answered(cached, query)

    monkeypatch.setattr(build, "signed_body", answer)
    assert publish.sweep() == 1
    assert row(assignment).error == "ZeroDivisionError: nobody thought of it"
    assert row(other).revision == 1


# --- the setting and the metrics ---------------------------------------------------------------------


def test_without_a_bucket_it_does_nothing(settings: Any) -> None:
    settings.SNAPSHOT_BUCKET = ""
    builders.environment()
    assert publish.sweep() == 0
    assert not Published.objects.exists()
    assert PublishedFigures().read() == []


def test_the_core_needs_none_of_the_optional_packages(tmp_path: Any) -> None:
    program = """
import sys
sys.modules |= {"storages": None, "boto3": None, "botocore": None}
import django
django.setup()
from django.core.management import call_command
from policies_app.snapshots import publish
import controlplane.server.lifespan
call_command("check")
print(publish.sweep())
"""
    environment = {
        "POINTSMAN_VAR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "controlplane.settings", "SNAPSHOT_BUCKET": "",
        "PATH": "/usr/bin:/bin",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=configured.BASE_DIR,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["0"]), done.stderr


def test_a_bucket_without_the_packages_fails_the_checks(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SNAPSHOT_BUCKET = "somewhere"
    assert checks.check_bucket(None) == []
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert [message.id for message in checks.check_bucket(None)] == ["pointsman.E008"]
    settings.SNAPSHOT_BUCKET = ""
    assert checks.check_bucket(None) == []


def figures(assignment: Assignment) -> dict[str, float]:
    name = assignment.environment.name
    samples = [sample for family in PublishedFigures().read() for sample in family.samples]
    return {sample.name: sample.value for sample in samples if sample.labels["environment"] == name}


def test_the_metrics_show_how_far_it_is_behind(assignment: Assignment, settings: Any) -> None:
    assert figures(assignment)["pointsman_published_revision"] == -1
    publish.sweep()
    assert figures(assignment) == {
        "pointsman_published_revision": 1,
        "pointsman_published_behind_seconds": 0,
        "pointsman_published_failures": 0,
    }
    pin(assignment)
    assignment.environment.revisions.filter(number=2).update(at=clock.now() - timedelta(seconds=100))
    assert 100 <= figures(assignment)["pointsman_published_behind_seconds"] < 160
    settings.SNAPSHOT_BUCKET = "nowhere"
    publish.sweep()
    assert figures(assignment)["pointsman_published_failures"] == 1


def test_a_scrape_works_without_a_database(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.SNAPSHOT_BUCKET = "somewhere"
    monkeypatch.setattr(connection, "cursor", None)
    published = PublishedFigures()
    with pytest.raises(TypeError):
        published.refresh()
    assert list(published.collect()) == []


def test_a_failed_sweep_does_not_end_the_loop(
    monkeypatch: pytest.MonkeyPatch, settings: Any, caplog: Any
) -> None:
    settings.SNAPSHOT_BUCKET = "somewhere"
    stopping, calls = threading.Event(), []

    def sweep() -> None:
        calls.append(1)
        if len(calls) == 2:
            stopping.set()
        else:
            build.publish("here", 2)
            raise httpx.HTTPError("broken")

    publish._nudge("here", 1)
    publish.follow(sweep, stopping)
    assert len(calls) == 2
    assert "a triggered sweep failed" in caplog.text
