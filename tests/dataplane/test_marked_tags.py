"""Compressing proxies mark the ETag. Polls must still be answered 304, or each would cost a whole snapshot."""

import pytest

from controlplane.core.actors import SYSTEM
from pointsman import Pace, Router
from policies_app import actions
from tests.support.compressing_proxy import CompressingProxy
from tests.support.plane import Plane, Served, until


@pytest.mark.parametrize("mark", ["-gzip", "--gzip", "-br", "-zstd", "-deflate"])
def test_a_marked_tag_matches(plane: Plane, served: Served, mark: str) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    for form in ('{}{}"', 'W/{}{}"'):
        answer = plane.snapshot(served.key, if_none_match=form.format(tag[:-1], mark))
        assert (answer.status, answer.headers["etag"]) == (304, tag)


@pytest.mark.parametrize("mark", ["-", "gzip", "-gzip2", "-gzip-gzip", "-x"])
def test_an_unknown_mark_does_not_match(plane: Plane, served: Served, mark: str) -> None:
    tag = plane.snapshot(served.key).headers["etag"]
    assert plane.snapshot(served.key, if_none_match=f'{tag[:-1]}{mark}"').status == 200


def test_a_router_behind_a_compressing_proxy_gets_304s(plane: Plane, served: Served) -> None:
    with (
        CompressingProxy(f"http://127.0.0.1:{plane.port}") as proxy,
        Router(proxy.url, served.key, wait_s=1, pace=Pace(first_poll_within=0)) as router,
    ):
        assert router.wait_ready(60)
        until(lambda: proxy.statuses.count(304) >= 2)
        pinned = actions.pin(served.assignment, "large", actor=SYSTEM, reason="now")
        until(lambda: router.revision == pinned.revision)
        until(lambda: proxy.statuses[-1] == 304)
        assert proxy.statuses.count(200) <= 3  # the first, the pin, and a full one to be stored on disk
        assert router.status()["poll_failures"] == 0
