"""Pointsman as a provider of the OpenFeature SDK, in process. Needs the SDK: `make integrations` installs it."""

import asyncio
import math
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip(
    "openfeature", reason="the OpenFeature SDK is not installed here; `make integrations` has it"
)

from openfeature import api  # noqa: E402
from openfeature.evaluation_context import EvaluationContext  # noqa: E402
from openfeature.event import ProviderEvent  # noqa: E402
from openfeature.exception import ErrorCode  # noqa: E402
from openfeature.track import TrackingEventDetails  # noqa: E402

from pointsman import Pace, Router  # noqa: E402
from pointsman.bucketing import bucket  # noqa: E402
from pointsman.integrations.openfeature import PointsmanProvider  # noqa: E402
from pointsman.testing import FakeControlPlane  # noqa: E402

POLICY: dict[str, Any] = {
    "format": 1,
    "workload": "chat",
    "models": {"small": {"model": "x/small", "params": {"temperature": 0}}, "large": {"model": "x/large"}},
    "inputs": {"contract": {"type": "number"}},
    "rules": [
        {"id": "long", "when": "request.prompt_tokens > 100", "use": "large"},
        {"id": "rich", "when": "request.attributes.contract > 5", "use": "large"},
    ],
    "default": "small",
    "fallback": ["large", "small"],
}


@pytest.fixture
def plane() -> Iterator[FakeControlPlane]:
    with FakeControlPlane() as plane:
        plane.serve("chat", POLICY)
        yield plane


@pytest.fixture
def client(plane: FakeControlPlane) -> Iterator[Any]:
    router = Router(plane.url, plane.key, pace=Pace(first_poll_within=0, flush_every=0.05))
    api.set_provider_and_wait(PointsmanProvider(router, closes_router=True, stale_after=0.4))
    yield api.get_client()
    api.shutdown()


def test_a_workload_is_a_string_flag_with_its_rule(client: Any) -> None:
    details = client.get_string_details("chat", "mine", EvaluationContext("c-1", {"prompt_tokens": 500}))
    assert (details.value, details.variant, details.reason) == ("x/large", "large", "TARGETING_MATCH")
    assert details.flag_metadata["rule"] == "long"
    assert details.flag_metadata["version"] == 1


def test_a_workload_is_an_object_flag_with_the_models_parameters(client: Any) -> None:
    details = client.get_object_details("chat", {}, EvaluationContext("c-1", {"contract": 9}))
    assert details.value == {"model": "x/large", "params": {}}
    assert client.get_object_value("chat", {})["params"] == {"temperature": 0}


def test_it_decides_in_a_coroutine_too(client: Any) -> None:
    details = asyncio.run(client.get_string_details_async("chat", "mine", EvaluationContext("c-1")))
    assert (details.value, details.reason) == ("x/small", "DEFAULT")


def test_an_unknown_workload_returns_the_callers_default(client: Any) -> None:
    details = client.get_string_details("nobody", "mine")
    assert (details.value, details.error_code) == ("mine", ErrorCode.FLAG_NOT_FOUND)


@pytest.mark.parametrize(("kind", "default"), [("boolean", True), ("integer", 3), ("float", 0.5)])
def test_a_workload_is_neither_a_boolean_nor_a_number(client: Any, kind: str, default: Any) -> None:
    details = getattr(client, f"get_{kind}_details")("chat", default)
    assert (details.value, details.error_code) == (default, ErrorCode.TYPE_MISMATCH)


def test_the_targeting_key_is_the_unit_of_a_rollout(plane: FakeControlPlane, client: Any) -> None:
    plane.roll_out(
        "chat", {**POLICY, "default": "large", "fallback": ["small"]}, share_pcm=50_000, rollout="s"
    )
    deadline = time.monotonic() + 20
    while client.get_string_details("chat", "mine").reason != "SPLIT" and time.monotonic() < deadline:
        time.sleep(0.05)
    for key in ("a", "b", "c", "d", "e", "f"):
        details = client.get_string_details("chat", "mine", EvaluationContext(key))
        arm = "candidate" if bucket("s", key) < 50_000 else "baseline"
        assert (details.flag_metadata["arm"], details.reason) == (arm, "SPLIT")


def test_tracking_is_feedback(plane: FakeControlPlane, client: Any) -> None:
    details = client.get_string_details("chat", "mine", EvaluationContext("c-1"))
    decision = details.flag_metadata["decision_id"]
    client.track("human_review", None, TrackingEventDetails(0.8, {"decision_id": decision, "success": True}))
    client.track("checkout", None, TrackingEventDetails(3.0))
    api.shutdown()
    assert [
        (word["decision_id"], word["kind"], word["success"], word["score"]) for word in plane.feedback
    ] == [(decision, "human_review", True, 0.8)]


@pytest.mark.parametrize(
    ("value", "success", "sent"),
    [
        (None, "false", None),
        (None, 0.5, None),
        (None, 1, {"success": True}),
        (4.0, None, None),
        (math.nan, None, None),
        (True, None, None),
        (4.0, False, {"success": False}),
        (1, "yes", {"score": 1.0}),
        (0.0, None, {"score": 0.0}),
    ],
)
def test_tracking_sends_only_what_is_a_grade_or_a_score(
    plane: FakeControlPlane, client: Any, value: Any, success: Any, sent: dict[str, Any] | None
) -> None:
    """A tracking call must not raise into the application."""
    attributes = {"decision_id": "2.x"} | ({} if success is None else {"success": success})
    client.track("human_review", None, TrackingEventDetails(value, attributes))
    api.shutdown()
    expected = [] if sent is None else [{"decision_id": "2.x", "kind": "human_review", **sent}]
    assert plane.feedback == expected


def test_an_unavailable_control_plane_makes_the_provider_stale(plane: FakeControlPlane, client: Any) -> None:
    said: list[str] = []
    client.add_handler(ProviderEvent.PROVIDER_STALE, lambda details: said.append(details.message))
    with plane.outage():
        deadline = time.monotonic() + 30
        while not said and time.monotonic() < deadline:
            time.sleep(0.05)
        assert said and said[0].startswith("no contact with the control plane for")
        assert client.get_string_value("chat", "mine") == "x/small", "the last known good policy stays in use"


def test_without_a_policy_in_time_it_is_not_ready() -> None:
    with FakeControlPlane() as plane:
        url, key = plane.url, plane.key
    router = Router(url, key, pace=Pace(first_poll_within=0))
    with pytest.raises(Exception, match="There is no policy after 0.2 s"):
        api.set_provider_and_wait(PointsmanProvider(router, ready_within=0.2, closes_router=True))
    api.clear_providers()
