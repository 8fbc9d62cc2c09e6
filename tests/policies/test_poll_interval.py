"""The poll interval of an environment is bounded: routers without long polls learn of a pin only after it."""

from typing import Any

import msgspec
import pytest

from controlplane.audit.models import Entry
from policies_app.models import MOST_POLL_INTERVAL_MS, Environment
from policies_app.snapshots import build, cache
from tests.support import builders
from tests.support.callers import Caller
from tests.support.people import logged_in

WEEKS_MS = 2**31 - 1


def patched(environment: Environment, **changes: Any) -> Any:
    return Caller()("PATCH", f"environments/{environment.name}", changes, **{"If-Match": "*"})


@pytest.mark.django_db
@pytest.mark.parametrize("interval", [199, MOST_POLL_INTERVAL_MS + 1, WEEKS_MS])
def test_it_refuses_an_interval_out_of_range(interval: int) -> None:
    environment = builders.environment()
    edited = patched(environment, poll_interval_ms=interval, reason="fewer requests")
    added = Caller()("POST", "environments", {"name": "fresh", "poll_interval_ms": interval})
    for answer in (edited, added):
        assert (answer.status_code, answer.json()["problems"][0]["path"]) == (422, "poll_interval_ms")
    environment.refresh_from_db()
    assert environment.poll_interval_ms == 10_000
    assert not Environment.objects.filter(name="fresh").exists()


@pytest.mark.django_db
def test_the_form_refuses_it_too() -> None:
    form = {"name": "staging", "poll_interval_ms": str(WEEKS_MS), "description": "", "reason": "why not"}
    response = logged_in("ada", "admin").post("/console/new-environment/", form)
    assert response.status_code == 422
    assert "less than or equal to 300000" in response.content.decode()


@pytest.mark.django_db
def test_raising_it_above_a_minute_needs_a_reason() -> None:
    environment = builders.environment()
    assert patched(environment, poll_interval_ms=60_000).status_code == 200
    refused = patched(environment, poll_interval_ms=120_000)
    assert (refused.status_code, refused.json()["problems"][0]["path"]) == (422, "reason")
    assert "120 s late" in refused.json()["detail"]
    assert patched(environment, poll_interval_ms=120_000, reason="a metered link").status_code == 200
    assert patched(environment, poll_interval_ms=90_000).status_code == 200  # lowering it helps


@pytest.mark.django_db
def test_an_earlier_interval_above_the_limit_does_not_stop_other_edits() -> None:
    """Its environment could not be frozen."""
    environment = builders.environment()
    Environment.objects.filter(pk=environment.pk).update(poll_interval_ms=WEEKS_MS)
    freeze = {"frozen_until": "2099-01-01T00:00:00Z", "freeze_reason": "holidays", "reason": "holidays"}
    answer = patched(environment, **freeze)
    assert (answer.status_code, answer.json()["poll_interval_ms"]) == (200, WEEKS_MS)
    assert Entry.objects.filter(action="environment.edit", outcome="done").exists()
    assert patched(environment, poll_interval_ms=120_000).status_code == 200  # lower than it was


@pytest.mark.django_db
def test_routers_receive_at_most_the_limit() -> None:
    environment = builders.environment()
    Environment.objects.filter(pk=environment.pk).update(poll_interval_ms=WEEKS_MS)
    header = cache.read_headers()[environment.name]
    known = cache.read_environment(header, None)
    assert known is not None
    body = msgspec.json.decode(build.plain_body(known, cache.SnapshotQuery(None, None)))
    assert body["poll_interval_ms"] == MOST_POLL_INTERVAL_MS
    # Two equal headers mean that nothing has changed.
    assert known.header == header


@pytest.mark.django_db
def test_a_new_environment_has_the_interval_of_the_setting(settings: Any) -> None:
    """The setting was documented and checked, and nothing read it."""
    settings.POLL_INTERVAL_MS = 45_000
    assert builders.environment().poll_interval_ms == 45_000
    assert builders.environment(poll_interval_ms=5_000).poll_interval_ms == 5_000
