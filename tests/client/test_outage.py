"""A control plane that is repeatedly killed and restarted while a router runs.

`POINTSMAN_OUTAGE_SECONDS=120 pytest tests/client/test_outage.py` makes each test last two minutes.
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pointsman import Pace, Router
from pointsman.testing import FakeControlPlane
from tests.client.policies import two_stage
from tests.support.services import free_port

SECONDS = float(os.environ.get("POINTSMAN_OUTAGE_SECONDS", "12"))
SCRIPT = Path(__file__).with_name("plane_process.py")


class PlaneProcess:
    """The control plane to kill: one port, one journal, a higher revision at each start."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.starts = 0
        self._process: subprocess.Popen[str] | None = None
        self.port = free_port()

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, str(SCRIPT), str(self.port), str(self.journal), str(self.starts)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "serving\n"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def tasks(self) -> Counter[str]:
        """Tasks by batch id; a batch written twice would count twice."""
        counted: Counter[str] = Counter()
        for line in self.journal.read_bytes().splitlines():
            try:
                data = json.loads(line)
            except ValueError:
                continue  # cut by a kill before it was acknowledged
            assert data["batch_id"] not in counted, "one batch was counted twice"
            counted[data["batch_id"]] = sum(bucket["tasks"] for bucket in data["buckets"])
        return counted


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    plane = PlaneProcess(tmp_path / "journal")
    plane.start()
    yield plane
    plane.kill()


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("spooled", [False, True])
def test_it_fails_no_decision_and_loses_no_outcome_through_outages(
    plane: PlaneProcess, tmp_path: Path, spooled: bool
) -> None:
    pace = Pace(first_poll_within=0, flush_every=0.2, stop_within=30)
    spool = tmp_path / "spool" if spooled else None
    router = Router(
        f"http://127.0.0.1:{plane.port}", "pmr_test", store=tmp_path / "s", spool=spool, pace=pace
    )
    assert router.wait_ready(30)
    over = threading.Event()
    wrong: list[str] = []
    recorded = [0, 0]

    def work(worker: int) -> None:
        while not over.is_set():
            decision = router.decide("summaries", {"prompt_tokens": 9_000, "endpoint": f"/{worker}"})
            if decision.model != "vendor/large":
                wrong.append(decision.reason)
            router.record(decision, success=True, cost_nusd=1_000, latency_ms=5)
            recorded[worker] += 1
            time.sleep(0.002)

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in (0, 1)]
    for worker in workers:
        worker.start()
    _kill_and_restart(plane, random.Random(11), SECONDS)
    over.set()
    for worker in workers:
        worker.join()
    accepted_before = router.status()["outcomes_accepted"]
    router.close()
    status = router.status()
    assert wrong == []
    assert plane.starts >= 3
    assert status["poll_failures"] > 0
    assert accepted_before <= sum(plane.tasks().values()) == sum(recorded) == status["outcomes_recorded"]
    assert (status["outcomes_dropped"], status["outcomes_refused"]) == (0, 0)


def test_a_line_cut_by_a_kill_does_not_damage_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(b'{"batch_id": "0b1c')
    for tasks in (1, 2):
        with FakeControlPlane(journal=journal) as plane:
            plane.serve("summaries", two_stage())
            with plane.router() as router:
                router.record(router.decide("summaries"), success=True)
        with FakeControlPlane(journal=journal) as plane:
            assert plane.tasks("summaries") == tasks


def _kill_and_restart(plane: PlaneProcess, chance: random.Random, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until or plane.starts < 3:
        time.sleep(chance.uniform(0.2, 2.0))
        plane.kill()
        time.sleep(chance.uniform(0.0, 1.5))
        plane.start()
