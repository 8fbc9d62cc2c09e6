"""The path of a request: poller → gateway → serving → bytes in memory → verified → stored → decided, no network."""

import httpx
import pytest

from controlplane.core.actors import SYSTEM
from policies_app import actions
from tests.support.plane import PATIENCE_S, until
from tests.support.town import LARGE, NAME, SMALL, Town


def test_a_request_is_decided_from_the_snapshot(town: Town) -> None:
    short, long = {"prompt_tokens": 900}, {"prompt_tokens": 1_000_000}
    with town.router(store=town.home / "last-good", wait_s=25) as router:
        # The router polls, verifies the signature, parses, stores, and only then decides with it.
        assert router.wait_ready(PATIENCE_S)
        decision = router.decide(NAME, short)
        assert (decision.model, decision.rule, decision.version) == (SMALL, "default", town.first.number)
        assert (router.decide(NAME, long).model, router.decide(NAME, long).rule) == (LARGE, "heavy")

        # The response has a body and a tag; with the same tag there is no body.
        address, headers = f"{town.server.url}/router/v1/snapshot", {"Authorization": f"Bearer {town.key}"}
        whole = httpx.get(address, headers=headers)
        assert (whole.status_code, whole.json()["revision"]) == (200, 1)
        same = httpx.get(address, headers=headers | {"If-None-Match": whole.headers["etag"]})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", whole.headers["etag"])

        # A change is a new revision, and a waiting poll is answered.
        actions.pin(town.assignment(), "large", actor=SYSTEM, reason="the small one is down")
        until(lambda: router.decide(NAME, short).model == LARGE)
        assert router.status()["revision"] == 2

        # Without the control plane it continues.
        town.server.__exit__()
        assert router.decide(NAME, short).model == LARGE
    with town.router(store=town.home / "last-good") as restarted:
        assert restarted.decide(NAME, short).model == LARGE
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)
