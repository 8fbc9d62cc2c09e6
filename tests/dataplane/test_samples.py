"""POST /router/v1/samples: inputs of requests as figures and names, the newest of each workload, and never a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.client.watching import eventually

if TYPE_CHECKING:
    from tests.support.plane import Answered, Plane, Served

DOOR = "/router/v1/samples"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout_app.outcomes import sampled_inputs

    monkeypatch.setattr(sampled_inputs, "WRITE_AFTER_S", 0.02)


@pytest.fixture
def send(plane: Plane, served: Served) -> Callable[..., Answered]:
    def post(*requests: Any, **changes: Any) -> Answered:
        workload = served.assignment.workload.name
        inputs = [
            {"workload": workload, "sample_id": f"s-{at}", "request": one, **changes}
            for at, one in enumerate(requests)
        ]
        return plane.post(DOOR, served.key, {"inputs": inputs})

    return post


def stored() -> list[dict[str, Any]]:
    from rollout_app.models import SampledInput

    return list(SampledInput.objects.order_by("pk").values_list("request", flat=True))


def test_it_stores_figures_and_names(send: Callable[..., Answered], served: Served) -> None:
    from rollout_app.outcomes import sampled_inputs

    request = {
        "prompt_tokens": 900, "endpoint": "/tickets/summary", "confidence": 0.5,
        "attributes": {"tier": "gold", "spend": 1.5, "beta": True},
    }  # fmt: skip
    answer = send(request, {})
    assert (answer.status, answer.json()) == (202, {"accepted": 2})
    assert eventually(lambda: len(stored()) == 2)
    assert stored() == [request, {}]
    environment, workload = served.environment, served.assignment.workload
    assert sampled_inputs.latest(environment, workload) == [request, {}]
    assert sampled_inputs.numbers(workload) == {environment.name: 2}


def test_one_sent_twice_is_stored_once(send: Callable[..., Answered]) -> None:
    assert [send({"turns": 1}).status, send({"turns": 2}).status] == [202, 202]
    assert eventually(lambda: len(stored()) == 1)
    assert send({"turns": 3}, {"turns": 4}).status == 202
    assert eventually(lambda: len(stored()) == 2)
    assert stored() == [{"turns": 1}, {"turns": 4}]


def test_the_newest_replace_the_oldest(served: Served, plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout_app.outcomes import sampled_inputs

    monkeypatch.setattr(sampled_inputs, "KEPT", 5)
    place, name = served.environment.pk, served.assignment.workload.name
    for at in range(4):
        sampled_inputs.store(
            [sampled_inputs.Sample(place, name, f"s-{at}-{n}", {"turns": 10 * at + n}) for n in range(3)]
        )
    assert [one["turns"] for one in stored()] == [21, 22, 30, 31, 32]
    sampled_inputs.store([sampled_inputs.Sample(place, name, f"many-{n}", {"turns": n}) for n in range(50)])
    assert [one["turns"] for one in stored()] == [45, 46, 47, 48, 49]
    sampled_inputs.store([sampled_inputs.Sample(place, "deleted", "x", {})])
    assert len(stored()) == 5


def test_they_are_deleted_after_a_week(served: Served, plane: Plane) -> None:
    from controlplane.core import clock
    from rollout_app.models import SampledInput
    from rollout_app.outcomes import sampled_inputs, store

    environment, workload = served.environment, served.assignment.workload
    sampled_inputs.store([sampled_inputs.Sample(environment.pk, workload.name, "s", {"turns": 1})])
    SampledInput.objects.update(at=clock.now() - timedelta(days=8))
    assert sampled_inputs.latest(environment, workload) == []
    assert store.prune()["SampledInput"] == 1


HOSTILE: dict[str, Any] = {
    "a text": {"endpoint": "please summarise this letter"},
    "a text as an attribute": {"attributes": {"prompt": "Dear Sir or Madam"}},
    "a text as an attribute's name": {"attributes": {"Dear Sir or Madam": 1}},
    "a long name": {"task_type": "x" * 65},
    "a long endpoint": {"endpoint": "/" * 201},
    "lines": {"language": "a\nb"},
    "a NUL": {"language": "a\0b"},
    "an unknown input": {"prompt": 1},
    "the messages": {"messages": [{"role": "user", "content": "x"}]},
    "a list": {"prompt_tokens": [1]},
    "an object": {"attributes": {"a": {"b": 1}}},
    "a huge number": {"prompt_tokens": 2**60},
    "null": {"prompt_tokens": None},
    "a number as a name": {"endpoint": 5},
    "a name as a number": {"prompt_tokens": "900"},
    "many attributes": {"attributes": {f"a{n}": n for n in range(51)}},
    "attributes as a list": {"attributes": []},
}


def test_anything_else_is_refused_by_index_and_nothing_is_stored(send: Callable[..., Answered]) -> None:
    for name, request in HOSTILE.items():
        answer = send({"turns": 1}, request)
        assert answer.status == 422, name
        (found,) = answer.json()["problems"]
        assert (found["list"], found["index"], found["field"].split(".")[0]) == ("inputs", 1, "request"), name
    assert stored() == []


ONE = '{"workload": "@", "sample_id": "s", "request": {}}'
WRONG = {
    '{"inputs": [{"workload": "@", "sample_id": "s", "request": {"turns": NaN}}]}': 400,
    '{"inputs": [{"workload": "@", "sample_id": "s", "request": {"turns": 1, "turns": 2}}]}': 400,
    '{"inputs": [{"workload": "@", "sample_id": "s", "request": {"turns": 1e999}}]}': 422,
    '{"inputs": [{"workload": "@", "sample_id": "", "request": {}}]}': 422,
    '{"inputs": [{"workload": "@", "sample_id": "s"}]}': 422,
    '{"inputs": [{"workload": "@", "sample_id": "s", "request": {}, "text": "x"}]}': 422,
    '{"inputs": [{"workload": "nobody", "sample_id": "s", "request": {}}]}': 422,
    '{"inputs": [], "note": "x"}': 422,
    '{"inputs": [' + ",".join([ONE] * 101) + "]}": 413,
    '{"inputs": ["' + "x" * 300_000 + '"]}': 413,
}


def test_a_wrong_shape_is_refused(plane: Plane, served: Served) -> None:
    for body, status in WRONG.items():
        text = body.replace("@", served.assignment.workload.name)
        assert plane.post(DOOR, served.key, text.encode()).status == status, body[:90]
    assert stored() == []


def test_a_key_limited_to_other_workloads_may_not_send(plane: Plane, served: Served) -> None:
    from tests.support.plane import router_key

    key = router_key(served.environment.name, workloads=["another"])
    body = {"inputs": [{"workload": served.assignment.workload.name, "sample_id": "s", "request": {}}]}
    answer = plane.post(DOOR, key, body)
    assert (answer.status, answer.json()["problems"][0]["field"]) == (422, "workload")


def test_a_flood_stays_bounded(send: Callable[..., Answered], monkeypatch: pytest.MonkeyPatch) -> None:
    from rollout_app.outcomes import sampled_inputs

    for _ in range(30):
        assert send(*({"turns": n} for n in range(100))).status == 202
    assert eventually(lambda: len(stored()) == 100)
    assert len(json.dumps(stored())) < 10_000
    assert sampled_inputs.WAITING == 2_000
