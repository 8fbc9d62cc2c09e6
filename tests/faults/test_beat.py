"""Celery beat after its clock was ahead and has been corrected."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.utils.module_loading import import_string

from controlplane import celery
from controlplane.celery import app
from controlplane.core.schedule import ENGINE, TABLE

NOW = datetime.now(UTC)
DELIVER = "controlplane.notifications.tasks.deliver"
Sent = list[str]


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Sent]]:
    """Return a function that lets one beat run until nothing is due, and returns the tasks that it sent."""
    kind = import_string(settings.CELERY_BEAT_SCHEDULER)
    sent: Sent = []
    monkeypatch.setattr(kind, "apply_entry", lambda self, entry, producer=None: sent.append(entry.task))
    monkeypatch.setattr(kind, "producer", None)
    beat = kind(app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
    beat.setup_schedule()

    def ticks() -> Sent:
        sent.clear()
        for _ in range(2 * len(TABLE)):
            if beat.tick() > 0:
                break
        return list(sent)

    yield ticks
    beat.close()


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(hours=1), timedelta(days=1)])
def test_a_clock_that_was_ahead_leaves_no_job_waiting(ticks: Callable[[], Sent], ahead: timedelta) -> None:
    """Each job used to wait until the clock had caught up, so the engine could stop for a day."""
    with time_machine.travel(NOW, tick=False) as clock:
        ticks()
        clock.move_to(NOW + ahead)
        assert ENGINE in ticks()
        clock.move_to(NOW + timedelta(seconds=3))
        ticks()  # beat notices the correction
        clock.move_to(NOW + timedelta(seconds=6))
        assert ENGINE in ticks()
        clock.move_to(NOW + timedelta(hours=1, seconds=6))
        assert {job.path for job in TABLE} <= set(ticks())


def test_a_stored_schedule_from_the_future_is_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beat was restarted after its clock had been corrected, and its schedule said that jobs had run in the future."""
    kind = import_string(settings.CELERY_BEAT_SCHEDULER)
    sent: Sent = []
    monkeypatch.setattr(kind, "apply_entry", lambda self, entry, producer=None: sent.append(entry.task))
    monkeypatch.setattr(kind, "producer", None)
    with time_machine.travel(NOW + timedelta(days=1), tick=False):
        before = kind(app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
        before.setup_schedule()
        before.close()
    with time_machine.travel(NOW, tick=False) as clock:
        after = kind(app, schedule_filename=str(tmp_path / "schedule"), lazy=True)
        after.setup_schedule()
        clock.shift(timedelta(seconds=3))
        while after.tick() == 0:
            pass
        after.close()
    assert ENGINE in sent


def test_a_scheduled_run_does_not_expire_by_a_workers_clock() -> None:
    """Engine runs used to expire after two seconds, so a worker three seconds ahead of beat discarded all of them."""
    assert all("expires" not in entry["options"] for entry in app.conf.beat_schedule.values())


def _scheduled_run(path: str) -> object:
    """Run the task as a worker does when beat has sent it."""
    task = app.tasks[path]
    task.push_request(**app.conf.beat_schedule[path]["options"].get("headers", {}))
    try:
        return task()
    finally:
        task.pop_request()


@pytest.mark.django_db
def test_missed_runs_are_made_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a pause, the queue holds hundreds of scheduled runs. A direct call is not one of them."""
    app.loader.import_default_modules()
    done: list[str] = []
    monkeypatch.setattr(app.tasks[DELIVER], "run", lambda: done.append("done"))
    monkeypatch.setattr(celery, "_ended_at", {})
    for _ in range(100):
        _scheduled_run(DELIVER)
    assert len(done) == 1
    app.tasks[DELIVER]()
    assert len(done) == 2
    monkeypatch.setattr(celery, "_ended_at", {DELIVER: time.monotonic() - 1.5})
    _scheduled_run(DELIVER)
    assert len(done) == 3
