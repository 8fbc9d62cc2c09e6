"""The embedded runner: it continues after a failure, and stops on request."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from controlplane.core import clock, heartbeats, periodic, schedule
from controlplane.core.models import Heartbeat
from controlplane.core.periodic import Runner
from controlplane.core.schedule import Job
from tests.support.plane import process_environment

calls: list[str] = []
release = threading.Event()


def works() -> None:
    calls.append("works")


def fails() -> None:
    calls.append("fails")
    raise RuntimeError("broken")


def hangs() -> None:
    calls.append("hangs")
    release.wait(60)


HERE = __name__


@pytest.fixture(autouse=True)
def _start_empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    calls.clear()
    release.clear()
    jobs = {f"test.{job.__name__}": job for job in (works, fails, hangs)}

    def load(path: str) -> Callable[[], None]:
        if path not in jobs:
            raise ImportError(path)
        return jobs[path]

    monkeypatch.setattr(periodic, "import_string", load)
    # These jobs do not use the database, and must not close the test's connections.
    monkeypatch.setattr(periodic, "close_old_connections", lambda: None)
    yield
    release.set()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, calls
        time.sleep(0.005)


def test_it_runs_a_job_again_after_a_failure(caplog: Any) -> None:
    runner = Runner([Job("test.fails", every=0.01)])
    runner.start()
    wait_for(lambda: calls.count("fails") >= 3)
    assert runner.stop(timeout=60)
    assert "test.fails failed" in caplog.text


def test_a_hanging_job_does_not_delay_others() -> None:
    runner = Runner([Job("test.hangs", every=0.01), Job("test.works", every=0.01)])
    runner.start()
    wait_for(lambda: "hangs" in calls and calls.count("works") >= 3)
    release.set()
    assert runner.stop(timeout=60)


def test_stopping_waits_for_the_running_job_and_starts_no_other() -> None:
    runner = Runner([Job("test.hangs", every=0.01)])
    runner.start()
    wait_for(lambda: "hangs" in calls)
    assert not runner.stop(timeout=0.05)
    release.set()
    assert runner.stop(timeout=60)
    assert calls == ["hangs"]


def test_a_watching_loop_is_told_to_stop() -> None:
    seen: list[bool] = []
    runner = Runner([], watch=[lambda stop: seen.append(stop.wait(60))])
    runner.start()
    assert runner.stop(timeout=60)
    assert seen == [True]


def test_a_wrong_path_fails_at_startup() -> None:
    with pytest.raises(ImportError):
        Runner([Job("test.nothing", every=1)])


def test_a_job_outside_of_the_table_is_not_run() -> None:
    with pytest.raises(KeyError):
        schedule.job("os.abort")


def test_every_job_of_the_table_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    Runner()


def test_celery_beat_has_the_whole_table() -> None:
    """Runs in a separate process, like beat, which reads the table before Django's apps are loaded."""
    code = "from controlplane.celery import app; print(*(p['task'] for p in app.conf.beat_schedule.values()))"
    planned = subprocess.run(
        [sys.executable, "-c", code], env=process_environment(), capture_output=True, text=True, check=True
    )
    assert set(planned.stdout.split()) == {job.path for job in schedule.TABLE}


@pytest.mark.parametrize("job", schedule.TABLE, ids=lambda job: job.path)
def test_every_job_is_one_task_with_a_time_limit(job: Job) -> None:
    from controlplane.celery import JobTask, app

    app.loader.import_default_modules()
    task = app.tasks[job.path]
    assert isinstance(task, JobTask)
    assert 0 < task.soft_time_limit < task.time_limit


@pytest.mark.django_db
def test_every_job_runs_and_leaves_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(heartbeats, "_written", {})
    monkeypatch.setattr(periodic, "close_old_connections", lambda: None)
    for job in schedule.TABLE:
        assert periodic.run_once(job), job.path
    assert set(heartbeats.ages()) == {job.path for job in schedule.TABLE}


# --- heartbeats ---------------------------------------------------------------------------------------------


@pytest.fixture
def unbeaten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "_written", {})


@pytest.mark.django_db
@pytest.mark.usefixtures("unbeaten")
def test_the_age_of_a_heartbeat_is_measured_by_the_databases_clock() -> None:
    assert heartbeats.engine_age() is None
    heartbeats.beat(schedule.ENGINE)
    age = heartbeats.engine_age()
    assert age is not None
    assert age < 60
    Heartbeat.objects.update(at=clock.now() - timedelta(seconds=100))
    assert (heartbeats.engine_age() or 0) >= 100


@pytest.mark.django_db
@pytest.mark.usefixtures("unbeaten")
def test_a_heartbeat_in_the_future_is_ignored() -> None:
    """If the database's clock was a day ahead and is corrected, a dead engine must not look alive for a day."""
    Heartbeat.objects.create(job=schedule.ENGINE, at=clock.now() + timedelta(days=1))
    assert heartbeats.engine_age() is None
    heartbeats.beat(schedule.ENGINE)
    assert heartbeats.engine_age() is not None


@pytest.mark.django_db
@pytest.mark.usefixtures("unbeaten")
def test_a_heartbeat_is_written_only_every_few_seconds() -> None:
    heartbeats.beat("a")
    Heartbeat.objects.all().delete()
    heartbeats.beat("a")
    assert not Heartbeat.objects.exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("unbeaten")
def test_a_job_that_fails_leaves_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout_app.evaluation import reconcile

    monkeypatch.undo()
    monkeypatch.setattr(periodic, "close_old_connections", lambda: None)
    monkeypatch.setattr(reconcile, "sweep", lambda: 1 / 0)
    assert not periodic.run_once(schedule.job(schedule.ENGINE))
    assert heartbeats.engine_age() is None
