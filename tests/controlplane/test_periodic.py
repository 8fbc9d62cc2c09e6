"""The embedded runner: it goes on after a failure, and stops when told."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controlplane.core import context, periodic
from controlplane.core.periodic import Job, Runner

calls: list[str] = []
release = threading.Event()


def works() -> None:
    calls.append(context.current().source)


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
    # These jobs ask no database, and the connections of a test are not theirs to close.
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


def test_a_job_that_hangs_keeps_no_other_waiting() -> None:
    runner = Runner([Job("test.hangs", every=0.01), Job("test.works", every=0.01)])
    runner.start()
    wait_for(lambda: "hangs" in calls and calls.count("job test.works") >= 3)
    release.set()
    assert runner.stop(timeout=60)


def test_stopping_waits_for_the_job_at_work_and_starts_no_other() -> None:
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


def test_a_wrong_path_fails_at_the_start() -> None:
    with pytest.raises(ImportError):
        Runner([Job("test.nothing", every=1)])


def test_a_job_outside_of_the_table_is_not_run() -> None:
    with pytest.raises(KeyError):
        periodic.job("os.abort")


def test_every_job_of_the_table_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    Runner()


def test_celery_beat_has_the_whole_table() -> None:
    from controlplane.celery import app

    assert {plan["args"][0] for plan in app.conf.beat_schedule.values()} == {
        job.path for job in periodic.TABLE
    }


@pytest.mark.django_db
def test_the_jobs_of_the_platform_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(periodic, "close_old_connections", lambda: None)
    for job in periodic.TABLE:
        if job.path.startswith("controlplane."):
            assert periodic.run_once(job), job.path
