"""Prometheus metrics of rollouts and the fleet."""

from datetime import timedelta

import pytest
from prometheus_client.metrics_core import Metric

from controlplane.core import clock
from controlplane.core.actors import SYSTEM
from policies_app.fleet.figures import FleetFigures
from policies_app.fleet.readback import read_fleet
from policies_app.models import Router
from rollout_app import actions
from rollout_app.figures import RolloutFigures
from rollout_app.models import Rollout
from tests.support import places
from tests.support.places import BEN

pytestmark = pytest.mark.django_db


def samples(families: list[Metric], name: str) -> dict[tuple[str, ...], float]:
    """Return each sample's value by its label values."""
    found = (sample for family in families for sample in family.samples if sample.name == f"pointsman_{name}")
    return {tuple(sample.labels.values()): sample.value for sample in found}


def figures(name: str) -> dict[tuple[str, ...], float]:
    return samples(list(RolloutFigures().read()), name)


def test_it_counts_rollouts_that_have_not_ended_by_state() -> None:
    waiting, running = places.proposed(), places.started()
    places.completed()
    assert figures("rollouts") == {
        (waiting.environment.name, "awaiting_approval"): 1,
        (running.environment.name, "running"): 1,
    }


def test_it_counts_held_rollouts_by_reason() -> None:
    held, other = places.started(), places.started()
    assert figures("rollouts_held") == {}
    Rollout.objects.filter(pk=held.pk).update(hold_code="freeze")
    assert figures("rollouts_held") == {(held.environment.name, "freeze"): 1}
    actions.pause_rollout(other, actor=BEN, reason="lunch")
    Rollout.objects.filter(pk=other.pk).update(hold_code="paused")
    assert len(figures("rollouts_held")) == 1, "a paused one is held by a person, and not counted"


def test_it_counts_rollbacks_by_actor() -> None:
    by_engine, by_person, aborted = places.started(), places.started(), places.started()
    actions.roll_back_rollout(by_engine, actor=SYSTEM, reason="it hurts")
    actions.roll_back_rollout(by_person, actor=BEN, reason="it hurts")
    actions.abort_rollout(aborted, actor=BEN, reason="not now")
    counted = figures("rollbacks_total")
    assert {labels: number for labels, number in counted.items() if number} == {
        (by_engine.environment.name, "system"): 1,
        (by_person.environment.name, "user"): 1,
        (aborted.environment.name, "user"): 1,
    }


def test_the_first_rollback_of_an_environment_is_an_increase() -> None:
    """Prometheus sees no increase in a series that begins at 1, so the alert missed the first rollback."""
    rollout = places.started()
    series = {(rollout.environment.name, by): 0 for by in ("system", "user", "key")}
    assert figures("rollbacks_total") == series
    actions.roll_back_rollout(rollout, actor=SYSTEM, reason="it hurts")
    assert figures("rollbacks_total") == series | {(rollout.environment.name, "system"): 1}


def test_it_exports_how_late_the_engine_is() -> None:
    rollout = places.started()
    assert figures("evaluation_overdue_seconds") == {(): 0}
    Rollout.objects.filter(pk=rollout.pk).update(wake_at=clock.now() + timedelta(minutes=1))
    assert figures("evaluation_overdue_seconds") == {(): 0}
    Rollout.objects.filter(pk=rollout.pk).update(wake_at=clock.now() - timedelta(minutes=5))
    assert figures("evaluation_overdue_seconds")[()] == pytest.approx(300, abs=60)
    Rollout.objects.filter(pk=rollout.pk).update(state="completed")
    assert figures("evaluation_overdue_seconds") == {(): 0}


def test_it_counts_routers_that_poll_by_whether_they_are_current() -> None:
    rollout = places.started()
    name = rollout.environment.name
    places.router(rollout, instance="current")
    places.router(rollout, revision=1, instance="behind")
    places.router(rollout, instance="of another epoch")
    Router.objects.filter(instance="of another epoch").update(epoch="another")
    places.router(rollout, instance="silent")
    Router.objects.filter(instance="silent").update(polled_at=clock.now() - timedelta(minutes=3))
    found = samples(list(FleetFigures().read()), "routers")
    assert found == {(name, "current"): 1, (name, "behind"): 2}
    places.router(rollout, revision=1, instance="by its ack")
    acked = {"acked_epoch": rollout.environment.epoch, "acked_revision": 10**6, "acked_at": clock.now()}
    Router.objects.filter(instance="by its ack").update(**acked)
    assert samples(list(FleetFigures().read()), "routers")[(name, "current")] == 2


def test_it_counts_routers_as_the_fleet_page_does() -> None:
    """Regression: a job that had ended counted as behind for two minutes, and an old ack as current for good."""
    rollout, now = places.started(), clock.now()
    name = rollout.environment.name
    for instance in ("job", "restarted from its disk", "new"):
        places.router(rollout, revision=1, instance=instance)
    Router.objects.filter(instance="job").update(left_at=now, polled_at=now)
    old = {"acked_epoch": rollout.environment.epoch, "acked_revision": 10**6}
    Router.objects.filter(instance="restarted from its disk").update(
        **old, acked_at=now - timedelta(minutes=5)
    )
    Router.objects.filter(instance="new").update(epoch="", first_polled_at=now - timedelta(minutes=1))
    fleet = read_fleet(rollout.environment).readback(rollout.environment.revision)
    found = samples(list(FleetFigures().read()), "routers")
    assert found == {(name, "behind"): 1} and (fleet.confirmed, fleet.of) == (0, 1)
