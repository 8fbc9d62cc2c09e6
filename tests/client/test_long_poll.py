"""A proxy with a short time limit: the router requests shorter polls, and loses nothing."""

import pytest

from pointsman import Pace, Router
from pointsman.sync.long_poll import LongPollWait
from pointsman.testing import FakeControlPlane
from tests.client.policies import two_stage
from tests.client.watching import eventually
from tests.support.cutting_proxy import CuttingProxy


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_halves_the_wait_after_each_cut_and_then_polls_plainly() -> None:
    wait, asked = LongPollWait(25), []
    while wait.seconds:
        asked.append(wait.seconds)
        assert wait.was_cut(wait.seconds, 3.0)
    assert asked == [25, 12, 6, 3]


@pytest.mark.parametrize(("asked", "took"), [(25, 0.5), (0, 30.0)])
def test_a_poll_that_ends_as_expected_does_not_count_as_cut(asked: int, took: float) -> None:
    wait = LongPollWait(25)
    assert not wait.was_cut(asked, took)
    assert wait.seconds == 25


def test_it_tries_the_full_wait_again_after_an_hour() -> None:
    clock = Clock()
    wait = LongPollWait(25, clock)
    wait.was_cut(25, 3.0)
    clock.now = 3_599
    assert wait.seconds == 12
    clock.now = 3_600
    assert wait.seconds == 25


@pytest.mark.parametrize("how", ["504", "reset"])
def test_a_proxy_with_a_limit_of_a_second_causes_no_outage(how: str) -> None:
    with FakeControlPlane() as plane, CuttingProxy(plane.url, after_s=1.2, how=how) as proxy:
        plane.serve("w", two_stage())
        with Router(proxy.url, plane.key, pace=Pace(first_poll_within=0)) as router:
            assert router.wait_ready(20)
            assert proxy.wait_for_cuts(2)
            assert router.status()["failures_in_a_row"] == 0
            plane.pin("w", "large", "outage")
            assert eventually(lambda: router.revision == plane.revision), (
                "a change arrives through the next poll"
            )
            assert router.status()["poll_failures"] == 0
