"""What a router reports about itself: when it leaves, its name; and nothing in a spool is lost."""

import os
from pathlib import Path

import pytest

from pointsman import ConfigurationError, Pace, Router
from pointsman.reporting.spool import Spool
from pointsman.testing import FakeControlPlane
from tests.client.watching import eventually


@pytest.mark.parametrize("key", [None, "", " \n"])
def test_it_refuses_to_start_without_a_key(key: str | None) -> None:
    """F20: otherwise each poll fails with a traceback."""
    with pytest.raises(ConfigurationError, match="key is missing or empty"):
        Router("http://pointsman.example", key, start=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["pmr_1\npmr_2", "pmr_é", "pmr_\0", "pmr_\x1b[0m"])
def test_it_refuses_to_start_with_a_key_that_cannot_be_sent(key: str) -> None:
    with pytest.raises(ConfigurationError, match="key has characters that no key has") as refused:
        Router("http://pointsman.example", key, start=False)
    assert "pmr_" not in str(refused.value), "a key is not quoted"


def test_it_sends_a_leaving_acknowledgement_when_it_closes(plane: FakeControlPlane) -> None:
    with plane.router(instance="job-1"):
        pass
    assert [(ack["router"], ack["state"]) for ack in plane.acks][-1] == ("job-1", "leaving")


def test_a_forked_child_gets_its_own_name(plane: FakeControlPlane) -> None:
    """F2: two processes with one name would count as one in the readback."""
    with plane.router(instance="x" * 128) as router:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, router.instance.encode())
            os._exit(0)
        os.waitpid(child, 0)
        name = os.read(reading, 200).decode()
        os.close(reading)
        os.close(writing)
        assert router.instance == "x" * 128
    assert name != "x" * 128
    assert name.startswith("x" * 100)
    assert len(name) == 128


def test_in_an_outage_records_are_spooled(plane: FakeControlPlane, tmp_path: Path) -> None:
    """F13: for any retry delay, records reach the disk within a flush interval."""
    with (
        plane.router(spool=tmp_path, pace=Pace(first_poll_within=0, flush_every=0.05)) as router,
        plane.outage(),
    ):
        for number in range(3):
            router.record(router.decide("summaries"), success=True)
            waiting = number + 1
            assert eventually(lambda n=waiting: _spooled(tmp_path) >= n)  # type: ignore[misc]


def _spooled(path: Path) -> int:
    return sum(batch.count for batch in Spool(path, orphaned_after_s=0).orphans(set()))
