"""Faults in an installation of real processes, while routers, reporters and people use it.

    pytest --db postgres tests/faults      each kind of fault once, in the order of FAULT_SEED (1)
    make faults                            as many as FAULTS says, for at most FAULT_SECONDS, written to FAULT_LOG

A failing run prints its seed, which repeats its choices, and keeps the logs of the processes.
"""

import logging
import os
from pathlib import Path

import pytest
from django.db import connection, connections

from tests.faults import checkers
from tests.faults.installation import Installation
from tests.faults.load import Load
from tests.faults.report import table
from tests.faults.results import RECOVERED_WITHIN_S, Run
from tests.faults.run import inject
from tests.faults.scene import Scene
from tests.support.plane import until

NUMBER = int(os.environ.get("FAULTS", "0"))  # 0: each kind once
SECONDS = float(os.environ.get("FAULT_SECONDS", "inf"))
SEED = int(os.environ.get("FAULT_SEED", "1"))
LOG = os.environ.get("FAULT_LOG", "")


@pytest.mark.timeout(6 * 3600)
def test_no_fault_breaks_an_invariant(transactional_db: None, tmp_path: Path) -> None:
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line for each of a hundred thousand requests
    scene, run = Scene(), Run(connection.vendor, SEED)
    with Installation(tmp_path) as installation:
        load = Load(installation.urls, scene, tmp_path, SEED)
        load.start()
        try:
            connections.close_all()  # otherwise faults would also cut this process's connections
            inject(installation, load, run, number=NUMBER, seconds=SECONDS, whole=bool(NUMBER))
        finally:
            load.stop()
        _wait_for_the_rest(scene, load)
    recorded = scene.recorded()
    run.violations = checkers.violations(load.history, recorded)
    run.violations += [f"a thread of the test ended: {error!r}" for error in load.errors]
    run.tasks = sum(counted.tasks for counted in checkers.added(load.history.routed).values())
    run.changes = len(load.history.changes)
    if LOG:
        run.write(Path(LOG))
    print("", *table([run]), sep="\n", flush=True)
    assert (run.violations, run.ended) == ([], ""), f"seed {SEED}"
    if NUMBER:  # the short run shares two cores with other tests, so its times mean nothing
        assert run.late() == {}, f"seed {SEED}"


def _wait_for_the_rest(scene: Scene, load: Load) -> None:
    """Wait for reports that routers have just sent and that are still in transit."""
    expected = checkers.added(load.history.routed)
    try:
        until(lambda: scene.recorded().routed == expected, RECOVERED_WITHIN_S)
    except AssertionError:
        return  # the checkers report what is missing
