"""Celery beat, whose clock is put right after it was ahead."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.conf import settings
from django.utils.module_loading import import_string

from controlplane.celery import app
from controlplane.core.schedule import ENGINE, TABLE

NOW = datetime.now(UTC)
Sent = list[str]


@pytest.fixture
def ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Sent]]:
    """Called, it lets beat look until nothing is due, and says what it has sent. Called anew it is the same beat."""
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
    """Each job waited until its clock had come as far again: the engine stood still for a day."""
    with time_machine.travel(NOW, tick=False) as clock:
        ticks()
        clock.move_to(NOW + ahead)
        assert ENGINE in ticks()
        clock.move_to(NOW + timedelta(seconds=3))
        ticks()  # it notices
        clock.move_to(NOW + timedelta(seconds=6))
        assert ENGINE in ticks()
        clock.move_to(NOW + timedelta(hours=1, seconds=6))
        assert {job.path for job in TABLE} <= set(ticks())


def test_a_schedule_of_the_future_on_disk_is_begun_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beat was started again after its clock was put right, and read when it had been."""
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
