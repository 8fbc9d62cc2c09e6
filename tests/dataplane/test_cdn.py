"""A router that polls a bucket: published by a server process, read without a key, verified by its signature."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.core import signing
from controlplane.core.actors import SYSTEM
from pointsman import Pace, Router
from policies_app import actions
from policies_app.models import Published
from rollout_app import actions as rollouts
from rollout_app.models import Rollout
from tests.support import builders
from tests.support.object_store import REGION, S3
from tests.support.places import ANNA
from tests.support.plane import PATIENCE_S, Served, Server, router_key, signing_key, until

PLACE = "eu/production"
KEY = f"{PLACE}/router/v1/snapshot"


@pytest.fixture
def published(transactional_db: None, s3: S3, tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """Return something served, a server that publishes it, and the bucket's name."""
    environment = builders.environment("production", poll_interval_ms=200)
    assignment = builders.served(environment, builders.workload())
    bucket = s3.bucket()
    server = Server(
        EMBEDDED_RUNNER="true",
        POINTSMAN_VAR=str(tmp_path / "var"),
        POINTSMAN_SIGNING_KEY=signing_key(),
        SNAPSHOT_BUCKET=bucket,
        SNAPSHOT_PREFIX="eu",
        AWS_S3_ENDPOINT_URL=s3.url,
        AWS_S3_REGION_NAME=REGION,
    )
    with server:
        yield Served(environment, assignment, router_key("production")), f"{server.url} {bucket}"


@pytest.fixture
def follower(published: tuple[Served, str], s3: S3, tmp_path: Path) -> Iterator[Router]:
    served, places = published
    url, bucket = places.split()
    with Router(
        url,
        served.key,
        snapshots_url=f"{s3.url}/{bucket}/{PLACE}",
        environment="production",
        public_keys=signing.public_key_text(),
        store=tmp_path / "last-good",
        pace=Pace(first_poll_within=0, flush_every=0.1),
    ) as router:
        assert router.wait_ready(PATIENCE_S)
        yield router


def test_a_router_follows_the_bucket(published: tuple[Served, str], follower: Router, s3: S3) -> None:
    served, places = published
    bucket, workload = places.split()[1], served.assignment.workload
    first, second = served.assignment.baseline, builders.version(workload)

    def version() -> int:
        return follower.decide(workload.name).version

    assert version() == first.number

    # A promotion and its rollback: both reach the router through the bucket, and its acks reach the engine.
    rollout = rollouts.propose_rollout(
        served.environment,
        workload,
        second,
        plan=[{"mode": "full", "min_minutes": 60}],
        reason="better",
        actor=ANNA,
    )
    rollouts.start_rollout(rollout, actor=ANNA, reason="now")
    until(lambda: version() == second.number)
    rollouts.roll_back_rollout(rollout.pk, actor=ANNA, reason="it was not")
    until(lambda: version() == first.number)
    until(lambda: Rollout.objects.get(pk=rollout.pk).state == "rolled_back")
    readback = Rollout.objects.get(pk=rollout.pk).readback
    assert (readback["confirmed"], readback["of"], readback["stragglers"]) == (1, 1, [])

    # Somebody writes into the bucket: the router refuses it, and the next change overwrites it.
    whole = s3.client().get_object(Bucket=bucket, Key=KEY)
    forged = whole["Body"].read().replace(b"gpt-4o-mini", b"gpt-4o-evil")
    s3.client().put_object(Bucket=bucket, Key=KEY, Body=forged, Metadata=whole["Metadata"])
    until(lambda: follower.status()["snapshots_refused"])
    assert "signature" in str(follower.status()["last_error"])
    assert follower.decide(workload.name).model == "openai/gpt-4o-mini"
    pin(served, "large")
    until(lambda: pinned(follower, served))


def test_an_outage_of_the_bucket_stops_nobody(
    published: tuple[Served, str], follower: Router, s3: S3
) -> None:
    served, _ = published
    s3.stop()
    try:
        pin(served, "large")
        until(lambda: Published.objects.get().failures)
        until(lambda: follower.status()["poll_failures"])
        assert not pinned(follower, served)  # it keeps what it has
        assert follower.decide(served.assignment.workload.name).version == 1
    finally:
        s3.start()
    until(lambda: pinned(follower, served))
    until(lambda: (Published.objects.get().failures, Published.objects.get().error) == (0, ""))


def pin(served: Served, alias: str) -> None:
    actions.pin(served.assignment, alias, actor=SYSTEM, reason="now")


def pinned(router: Router, served: Served) -> Any:
    return router.decide(served.assignment.workload.name).model == "anthropic/claude-sonnet-4-5"
