"""A proxy with a short time limit: the router requests shorter polls, and loses nothing."""

import asyncio

import httpx
import pytest

from pointsman import Pace, Router
from pointsman.sync.long_poll import HELD_S, LongPollWait
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


def failing(error: type[httpx.TransportError], asked: list[str]) -> httpx.MockTransport:
    """Long polls fail after a second; plain polls and everything else get a 503."""

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/snapshot"):
            asked.append(request.headers.get("Prefer", ""))
            if asked[-1]:
                await asyncio.sleep(HELD_S + 0.1)
                raise error("no luck", request=request)
        return httpx.Response(503, headers={"Retry-After": "0"})

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    "error", [httpx.ConnectTimeout, httpx.ConnectError, httpx.ReadTimeout, httpx.WriteError]
)
def test_a_server_that_cannot_be_reached_or_hangs_is_an_outage(error: type[httpx.TransportError]) -> None:
    """It passed for a proxy that cuts long polls, so the status reported no failure."""
    asked: list[str] = []
    http = {"transport": failing(error, asked)}
    with Router("http://x", "pmr_test", pace=Pace(first_poll_within=0), http=http) as router:
        assert eventually(lambda: len(asked) >= 2)
        assert router.status()["failures_in_a_row"] > 0
    assert asked[:2] == ["wait=25", ""], "plain polls during an outage"


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.RemoteProtocolError])
def test_a_connection_that_ends_during_a_long_poll_is_no_outage(error: type[httpx.TransportError]) -> None:
    asked: list[str] = []
    http = {"transport": failing(error, asked)}
    with Router("http://x", "pmr_test", pace=Pace(first_poll_within=0), http=http) as router:
        assert eventually(lambda: len(asked) >= 2)
        assert router.status()["failures_in_a_row"] == 0
    assert asked[:2] == ["wait=25", "wait=12"]


def test_a_long_poll_that_gets_no_answer_is_an_outage_and_makes_the_next_shorter() -> None:
    """Something in between may drop idle connections and tell nobody."""
    with FakeControlPlane() as plane:
        plane.serve("w", two_stage())
        asked: list[str] = []

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/snapshot"):
                asked.append(request.headers.get("Prefer", ""))
                if asked[-1] == "wait=25":
                    await asyncio.sleep(HELD_S + 0.1)
                    raise httpx.ReadTimeout("", request=request)
            async with httpx.AsyncClient() as behind:
                request.headers["Host"] = plane.url.removeprefix("http://")
                sent = behind.build_request(
                    request.method, f"{plane.url}{request.url.raw_path.decode()}",
                    headers=request.headers, content=request.content,
                )  # fmt: skip
                return await behind.send(sent)

        http = {"transport": httpx.MockTransport(answer)}
        with Router("http://x", plane.key, pace=Pace(first_poll_within=0), http=http) as router:
            assert eventually(lambda: asked[-1:] == ["wait=12"])
            assert router.status()["poll_failures"] == 1
        assert asked[:3] == ["wait=25", "", "wait=12"]


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
