"""Routers killed without warning (kill -9) while responses get lost: what reached the spool counts exactly once."""

import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pointsman import Pace
from pointsman.reporting.spool import Spool
from pointsman.testing import FakeControlPlane, Reply, Request
from tests.client.policies import two_stage
from tests.client.watching import eventually

SCRIPT = Path(__file__).with_name("router_process.py")


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    """Commits everything, and loses two of three responses to outcomes and feedback."""
    chance = random.Random(5)

    def lose_answers(request: Request, reply: Reply) -> Reply:
        posted = request.path.endswith(("/outcomes", "/feedback"))
        return replace(reply, status=503) if posted and chance.random() < 0.67 else reply

    with FakeControlPlane() as plane:
        plane.serve("summaries", two_stage())
        plane.tamper = lose_answers
        yield plane


def killed(plane: FakeControlPlane, spool: Path, name: str) -> tuple[set[str], set[str]]:
    """Start a router, and kill it while its disk contains a batch whose response was lost, and some feedback.

    Return (batches, decisions with feedback) that it left there.
    """
    command = [sys.executable, str(SCRIPT), plane.url, str(spool), name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "recording\n"
    assert eventually(
        lambda: (
            list(spool.glob("*.feedback"))
            and any(plane.deliveries.get(file.stem, 0) > 0 for file in spool.glob("*.json"))
        )
    )
    process.kill()
    process.wait()
    process.stdout.close()
    words = [w for f in spool.glob("*.feedback") for w in json.loads(f.read_bytes())["feedback"]]
    return {file.stem for file in spool.glob("*.json")}, {word["decision_id"] for word in words}


def test_outcomes_on_disk_are_counted_exactly_once(plane: FakeControlPlane, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    left_batches: set[str] = set()
    left_words: set[str] = set()
    for number in range(4):
        batches, words = killed(plane, spool, f"r{number}")
        left_batches |= batches
        left_words |= words
    assert left_batches
    assert left_words
    plane.tamper = None
    heir = Spool(spool, orphaned_after_s=0)
    with plane.router(spool=heir, pace=Pace(first_poll_within=0, flush_every=0.05, stop_within=20)):
        # Torn writes are temporary files with names that nobody reads.
        assert eventually(lambda: not [file for file in spool.iterdir() if not file.name.startswith(".")])
    assert left_batches <= set(plane.batches)
    assert left_words <= {word["decision_id"] for word in plane.feedback}
    assert max(plane.deliveries.values()) > 1, "some batches arrived more than once"
    tasks = Counter(bucket["endpoint"] for bucket in plane.buckets("summaries"))
    assert set(tasks.values()) == {1}
    assert {bucket["tasks"] for bucket in plane.buckets("summaries")} == {1}
    assert set(Counter(word["decision_id"] for word in plane.feedback).values()) == {1}
