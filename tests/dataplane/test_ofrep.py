"""Workloads as OFREP flags: the same choice as in a router, and responses that OpenFeature's provider understands."""

import json
from typing import Any

import pytest
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import FlagNotFoundError
from openfeature.flag_evaluation import Reason

from pointsman.bucketing import bucket
from pointsman.policy import digest
from policies_app.snapshots.cache import CachedEnvironment, Fragment, SnapshotHeader
from policies_app.snapshots.ofrep import evaluate_all, evaluate_one
from tests.support.plane import Plane, Served

POLICY: dict[str, Any] = {
    "format": 1,
    "workload": "chat",
    "models": {"small": {"model": "x/small", "params": {"temperature": 0}}, "large": {"model": "x/large"}},
    "rank": ["small", "large"],
    "rules": [{"id": "long", "when": "request.prompt_tokens > 100", "use": "large"}],
    "default": "small",
    "fallback": ["large", "small"],
}
CANDIDATE = {**POLICY, "default": "large", "fallback": ["small"]}


def served(policy: dict[str, Any], version: int = 1) -> dict[str, Any]:
    return {"version": version, "digest": digest(policy), "policy": policy}


def generation(*, revision: int = 7, **changes: Any) -> CachedEnvironment:
    entry = {
        "revision": revision, "unit": "conversation", "baseline": served(POLICY), "candidate": None, "rollout": None,
        "pin": None, **changes,
    }  # fmt: skip
    entries = {
        "chat": Fragment(revision, json.dumps(entry).encode()),
        "other": Fragment(1, json.dumps({**entry, "revision": 1}).encode()),
    }
    return CachedEnvironment(SnapshotHeader(1, "production", "epoch", revision, 10_000), entries, {})


def asked(context: Any) -> bytes:
    return json.dumps({"context": context}).encode()


def test_it_answers_with_model_variant_and_reason() -> None:
    reply = evaluate_one(generation(), None, "chat", asked({"targetingKey": "c-1", "prompt_tokens": 500}))
    answer = json.loads(reply.body)
    assert reply.status == 200
    assert (answer["key"], answer["value"], answer["variant"]) == ("chat", "x/large", "large")
    assert answer["reason"] == "TARGETING_MATCH"
    assert answer["metadata"]["rule"] == "long"
    assert answer["metadata"]["decision_id"]


def test_parameters_are_metadata() -> None:
    answer = json.loads(evaluate_one(generation(), None, "chat", b"").body)
    assert (answer["value"], answer["reason"], answer["metadata"]["params.temperature"]) == (
        "x/small",
        "DEFAULT",
        0,
    )


@pytest.mark.parametrize("unit", [f"c-{at}" for at in range(8)])
def test_a_unit_gets_the_arm_that_a_router_gives_it(unit: str) -> None:
    rollout = {"id": "r", "stage": 1, "mode": "percentage", "share_pcm": 50_000, "salt": "s", "mirror_pcm": 0}
    moving = generation(candidate=served(CANDIDATE, 2), rollout=rollout)
    answer = json.loads(evaluate_one(moving, None, "chat", asked({"targetingKey": unit})).body)
    assert answer["metadata"]["arm"] == ("candidate" if bucket("s", unit) < 50_000 else "baseline")
    assert answer["reason"] == "SPLIT"


def test_a_pin_is_reported() -> None:
    pinned = generation(pin={"model": "small", "reason": "outage"})
    answer = json.loads(evaluate_one(pinned, None, "chat", asked({"prompt_tokens": 500})).body)
    assert (answer["value"], answer["reason"]) == ("x/small", "DISABLED")


@pytest.mark.parametrize(
    ("name", "selection"), [("nobody", None), ("chat", frozenset({"other"})), ("chat", frozenset())]
)
def test_unserved_and_hidden_workloads_are_not_found(name: str, selection: frozenset[str] | None) -> None:
    reply = evaluate_one(generation(), selection, name, b"{}")
    assert (reply.status, json.loads(reply.body)["errorCode"]) == (404, "FLAG_NOT_FOUND")


def test_an_environment_without_a_snapshot_serves_nothing() -> None:
    assert evaluate_one(None, None, "chat", b"").status == 404
    assert json.loads(evaluate_all(None, None, b"", None).body)["flags"] == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "PARSE_ERROR"),
        (b"[]", "INVALID_CONTEXT"),
        (b'{"context": 3}', "INVALID_CONTEXT"),
        (b'{"context": {"targetingKey": 3}}', "INVALID_CONTEXT"),
        (b'{"context": {"x": "' + b"y" * 70_000 + b'"}}', "INVALID_CONTEXT"),
        (b"[" * 100_000, "INVALID_CONTEXT"),
        # Decoded, but too deep for the encoder of its tag a few levels further up: 500.
        *(
            (b'{"context": {"x": ' + b"[" * deep + b"]" * deep + b"}}", "PARSE_ERROR")
            for deep in (100, 960, 970, 980, 990)
        ),
    ],
)
def test_an_invalid_context_is_refused(body: bytes, code: str) -> None:
    for reply in (
        evaluate_one(generation(), None, "chat", body),
        evaluate_all(generation(), None, body, None),
    ):
        assert (reply.status, json.loads(reply.body)["errorCode"]) == (400, code)


def test_all_workloads_of_the_key_are_evaluated_at_once() -> None:
    document = json.loads(evaluate_all(generation(), None, b"", None).body)
    assert [flag["key"] for flag in document["flags"]] == ["chat", "other"]
    assert document["metadata"] == {"environment": "production", "revision": 7}
    one = json.loads(evaluate_all(generation(), frozenset({"chat"}), b"", None).body)
    assert [flag["key"] for flag in one["flags"]] == ["chat"]


def test_a_bulk_evaluation_is_sent_again_only_when_something_changed() -> None:
    context = asked({"targetingKey": "c-1"})
    first = evaluate_all(generation(), None, context, None)
    etag = dict(first.headers)[b"etag"]
    assert evaluate_all(generation(), None, context, etag).status == 304
    assert evaluate_all(generation(), None, context, b'"other", ' + etag).status == 304
    assert evaluate_all(generation(revision=8), None, context, etag).status == 200
    assert evaluate_all(generation(), None, asked({"targetingKey": "c-2"}), etag).status == 200


def test_a_policy_that_cannot_run_is_not_served() -> None:
    broken = generation(baseline={"version": 1, "digest": "sha256:0", "policy": POLICY})
    assert evaluate_one(broken, None, "chat", b"").status == 404


# --- over HTTP, by OpenFeature's own provider ----------------------------------------------------------


def test_openfeatures_remote_provider_gets_the_same_choice_as_a_router(plane: Plane, served: Served) -> None:
    client = OFREPProvider(
        f"http://127.0.0.1:{plane.port}", headers_factory=lambda: {"Authorization": f"Bearer {served.key}"}
    )
    context = EvaluationContext("c-1", {"prompt_tokens": 20_000})
    details = client.resolve_string_details(served.assignment.workload.name, "mine", context)
    assert (details.value, details.variant, details.reason) == (
        "anthropic/claude-sonnet-4-5", "large", Reason.TARGETING_MATCH
    )  # fmt: skip
    with pytest.raises(FlagNotFoundError, match="serves no workload 'nobody'"):
        client.resolve_string_details("nobody", "mine", context)


def test_remote_evaluation_requires_a_router_key(plane: Plane, served: Served) -> None:
    assert plane.post("/ofrep/v1/evaluate/flags", "pmr_wrong", {}).status == 401
    assert plane.get("/ofrep/v1/evaluate/flags", served.key).status == 405
    all_of_them = plane.post("/ofrep/v1/evaluate/flags", served.key, {})
    assert [flag["key"] for flag in json.loads(all_of_them.body)["flags"]] == [
        served.assignment.workload.name
    ]
