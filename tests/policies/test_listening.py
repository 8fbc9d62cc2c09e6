"""The periods in which the control plane could hear its routers, and the thread that records both."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection

from controlplane.access.actions import issue_key, rotate_key
from controlplane.access.models import Key
from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.fleet import listening, writer
from policies_app.fleet.buffer import FleetBuffer
from policies_app.fleet.listening import note_listening
from policies_app.fleet.readback import has_left
from policies_app.models import Listening, Router
from tests.support import builders
from tests.support.behind_the_head import behind_the_head

pytestmark = pytest.mark.django_db

T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def note(settings: Any) -> Callable[[float], list[tuple[float, float]]]:
    """Return a function that notes listening at T0 + seconds and returns the recorded periods, in seconds after T0."""
    settings.CLOCK = "process"

    def note_at(seconds: float) -> list[tuple[float, float]]:
        with time_machine.travel(T0 + timedelta(seconds=seconds), tick=False):
            note_listening()
        rows = Listening.objects.order_by("began_at").values_list("began_at", "until")
        return [((began - T0).total_seconds(), (until - T0).total_seconds()) for began, until in rows]

    return note_at


def test_it_extends_a_period_over_short_pauses(note: Callable[[float], Any]) -> None:
    note(0)
    assert note(19) == [(0, 19)]
    assert note(17) == [(0, 19)]  # another gateway, slightly late


def test_it_starts_a_period_after_an_outage(note: Callable[[float], Any]) -> None:
    note(0)
    assert note(20) == [(0, 0), (20, 20)]


def test_it_starts_a_period_when_the_clock_is_set_back(note: Callable[[float], Any]) -> None:
    note(0)
    note(86_400)
    note(86_410)
    assert note(30) == [(0, 0), (30, 30)]
    note(40)
    assert note(20) == [(0, 0), (20, 20)]


def test_it_deletes_periods_that_ended_before_any_known_router(note: Callable[[float], Any]) -> None:
    note(0)
    note(8 * 86_400 + 60)
    with time_machine.travel(T0 + timedelta(days=8, seconds=61), tick=False):
        listening.prune()
    assert Listening.objects.count() == 1


# --- the writer -----------------------------------------------------------------------------------------


def test_it_uses_the_databases_clock_and_not_its_own(settings: Any) -> None:
    environment, buffer = builders.environment(), FleetBuffer()
    with time_machine.travel(T0 - timedelta(days=1)):  # this gateway's clock is a day behind
        buffer.polled(environment.pk, "r-1", "", environment.epoch, 1)
        writer.flush(buffer)
    router = Router.objects.get()
    assert datetime.now(UTC) - router.polled_at < timedelta(minutes=1)
    assert router.first_polled_at == router.polled_at


def test_it_keeps_when_a_router_was_first_heard() -> None:
    environment, buffer = builders.environment(), FleetBuffer()
    for revision in (1, 2):
        buffer.polled(environment.pk, "r-1", "", environment.epoch, revision)
        writer.flush(buffer)
    router = Router.objects.get()
    assert router.first_polled_at is not None
    assert router.first_polled_at < router.polled_at


def test_an_older_poll_does_not_bring_back_a_router_that_left() -> None:
    environment = builders.environment()
    here, elsewhere = FleetBuffer(), FleetBuffer()
    elsewhere.polled(environment.pk, "job", "", environment.epoch, 1)
    here.left(environment.pk, "job", "")
    writer.flush(here)
    writer.flush(elsewhere)  # this gateway writes what it heard earlier
    assert has_left(Router.objects.get(), clock.now())
    time.sleep(0.15)
    here.polled(environment.pk, "job", "", environment.epoch, 1)
    writer.flush(here)
    assert not has_left(Router.objects.get(), clock.now())


@pytest.mark.django_db(transaction=True)
def test_a_key_that_is_just_changed_delays_no_row() -> None:
    """A rotation that waited for the head of the audit log held the key's row, and the writer waited for that."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite locks no rows")
    environment, buffer = builders.environment(), FleetBuffer()
    rotated, other = (issue_key("router", environment.name, "a router", actor=SYSTEM)[0] for _ in range(2))
    buffer.polled(environment.pk, "r-1", "", environment.epoch, 1)
    buffer.used(rotated.pk)
    buffer.used(other.pk)

    def used() -> list[bool]:
        return [Key.objects.get(pk=key.pk).last_used_at is not None for key in (rotated, other)]

    meanwhile: list[object] = []
    errors = behind_the_head(
        lambda: rotate_key(rotated.key_id, actor=SYSTEM),
        lambda: writer.flush(buffer),
        lambda: meanwhile.append((Router.objects.count(), used())),
    )
    assert (errors, meanwhile) == ([None] * 3, [(1, [False, True])])
    buffer.used(rotated.pk)
    writer.flush(buffer)
    assert used() == [True, True]


@pytest.mark.django_db(transaction=True)  # an error closes the connection
def test_no_error_ends_the_writer(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    thread = writer.FleetWriter(FleetBuffer())
    monkeypatch.setattr(writer, "flush", lambda buffer: 1 / 0)
    thread._try_round()
    assert Listening.objects.count() == 0
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    thread._try_round()
    assert Listening.objects.count() == 1


def test_it_deletes_routers_that_left(settings: Any) -> None:
    environment = builders.environment()
    now = datetime.now(UTC)
    for minutes in (59, 61):
        at = now - timedelta(minutes=minutes)
        Router.objects.create(environment=environment, instance=f"{minutes}", polled_at=at, left_at=at)
    assert writer.prune() == 1
    assert Router.objects.get().instance == "59"
