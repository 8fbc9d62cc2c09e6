"""Our response compared with the contract that Plano proposes for external routing policies.

The format is described in Plano's issue 812 and, as read by its client, in pull request 846
(https://github.com/katanemo/plano/pull/846, head 1422df5f of 26 March 2026, `router/policy_provider.rs`): `policy_id`
(text), `revision` (u64), `schema_version` (text, must be "v1") and `routing_preferences`, a list of models with named
and described routes. Plano refuses a response with another `policy_id` than it requested. Pull request 817 sends no
revision and reads the same response. Neither is merged, so there is no Plano to run this against.
"""

import json
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from controlplane.core.errors import NotFound
from pointsman.bucketing import bucket
from policies_app.snapshots.cache import CachedEnvironment
from policies_app.snapshots.plano import EVERYTHING_ELSE, routing_policy
from tests.dataplane.test_ofrep import CANDIDATE, POLICY, generation, served
from tests.support import builders
from tests.support.plane import router_key

if TYPE_CHECKING:
    from tests.support.plane import Answered, Plane, Served

ROUTE = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "description": {"type": "string", "minLength": 1},
    },
    "required": ["name", "description"],
    "additionalProperties": False,
}
MODEL = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "routing_preferences": {"type": "array", "items": ROUTE},
    },
    "required": ["model", "routing_preferences"],
    "additionalProperties": False,
}
ANSWER = jsonschema_rs.validator_for(
    {
        "type": "object",
        "properties": {
            "policy_id": {"type": "string", "minLength": 1},
            "revision": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
            "schema_version": {"const": "v1"},
            "routing_preferences": {"type": "array", "items": MODEL},
        },
        "required": ["policy_id", "revision", "schema_version", "routing_preferences"],
        "additionalProperties": False,
    }
)


def everything(name: str) -> bool:
    return True


def read(policy_id: str, environment: CachedEnvironment) -> dict[str, Any]:
    """Parse the response like the proposal's client."""
    reply = routing_policy(environment, everything, policy_id)
    assert reply.status == 200
    document: dict[str, Any] = json.loads(reply.body)
    ANSWER.validate(document)
    assert document["policy_id"] == policy_id
    names = [
        route["name"] for model in document["routing_preferences"] for route in model["routing_preferences"]
    ]
    assert len(set(names)) == len(names), "Plano finds the model by the route's name"
    assert "other" not in names, "Plano's router answers `other` where no route matches"
    return document


def routes(policy_id: str = "chat", **changes: Any) -> dict[str, list[tuple[str, str]]]:
    """Return the routes by model."""
    document = read(policy_id, generation(**changes))
    return {
        entry["model"]: [(route["name"], route["description"]) for route in entry["routing_preferences"]]
        for entry in document["routing_preferences"]
    }


def test_each_rule_is_a_route_to_its_model() -> None:
    assert routes() == {
        "x/large": [("long", "request.prompt_tokens > 100")],
        "x/small": [("default", EVERYTHING_ELSE)],
    }


def test_a_note_becomes_the_description() -> None:
    rules = [
        {**POLICY["rules"][0], "note": "long documents"},
        {"id": "other", "when": 'request.priority == "high"', "use": "small"},
    ]
    assert routes(baseline=served({**POLICY, "rules": rules})) == {
        "x/large": [("long", "long documents")],
        "x/small": [("rule:other", 'request.priority == "high"'), ("default", EVERYTHING_ELSE)],
    }


def test_a_policy_without_rules_has_one_model() -> None:
    plain = {name: value for name, value in POLICY.items() if name != "rules"}
    assert routes(baseline=served(plain)) == {"x/small": [("default", EVERYTHING_ELSE)]}


@pytest.mark.parametrize(("pin", "model"), [("large", "x/large"), ("y/elsewhere", "y/elsewhere")])
def test_a_pin_leaves_only_one_model(pin: str, model: str) -> None:
    assert routes(pin={"model": pin, "reason": "outage"}) == {model: [("default", EVERYTHING_ELSE)]}


def rollout(mode: str, share_pcm: int) -> dict[str, Any]:
    entry = {"id": "r", "stage": 1, "mode": mode, "share_pcm": share_pcm, "salt": "s", "mirror_pcm": 0}
    return {"candidate": served(CANDIDATE, 2), "rollout": entry}


@pytest.mark.parametrize("unit", [f"c-{at}" for at in range(8)])
def test_a_unit_gets_the_arm_that_a_router_gives_it(unit: str) -> None:
    in_candidate = bucket("s", unit) < 50_000
    assert ("x/small" in routes(f"chat/{unit}", **rollout("percentage", 50_000))) is not in_candidate


def test_without_a_unit_the_candidate_is_returned_only_once_it_serves_everybody() -> None:
    for policy_id in ("chat", "chat/", "chat/ "):
        assert "x/small" in routes(policy_id, **rollout("percentage", 99_999))
        assert "x/small" in routes(policy_id, **rollout("shadow", 0))
        assert "x/small" not in routes(policy_id, **rollout("full", 100_000))
    assert "x/small" in routes("chat/c-1", **rollout("shadow", 0))


def test_a_unit_may_be_any_text() -> None:
    for unit in ("a/b", "ä", "x" * 5_000, "a b"):
        document = json.loads(routing_policy(generation(), everything, f"chat/{unit}").body)
        assert document["policy_id"] == f"chat/{unit}"


def test_unserved_and_hidden_workloads_are_not_found() -> None:
    for environment, may_see, name in (
        (generation(), everything, "nobody"),
        (generation(), lambda name: name == "other", "chat"),
        (generation(baseline={**served(POLICY), "digest": "sha256:0"}), everything, "chat"),
    ):
        with pytest.raises(NotFound):
            routing_policy(environment, may_see, name)


def test_it_is_sent_again_only_when_the_policy_changed() -> None:
    def tagged(environment: CachedEnvironment, policy_id: str = "chat", tag: bytes | None = None) -> Any:
        return routing_policy(environment, everything, policy_id, tag)

    tag = dict(tagged(generation()).headers)[b"etag"]
    assert tagged(generation(), tag=b'"x", W/' + tag).status == 304
    assert tagged(generation(), tag=b"*").status == 304
    assert tagged(generation(), "chat/c-1", tag).status == 200
    assert tagged(generation(revision=8), tag=tag).status == 200
    assert dict(tagged(generation()).headers)[b"cache-control"] == b"private, max-age=10"


# --- over HTTP ----------------------------------------------------------------------------------------


class Plano:
    """Requests and caches as proposed: a cached policy is used until its time is over, or until a caller names a
    higher revision."""

    def __init__(self, plane: "Plane", key: str, ttl_s: float = 300) -> None:
        self.plane, self.key, self.ttl_s, self.fetched = plane, key, ttl_s, 0
        self.cached: dict[str, tuple[float, dict[str, Any]]] = {}

    def policy(self, policy_id: str, revision: int = 0, at: float = 0.0) -> dict[str, Any]:
        fetched_at, cached = self.cached.get(policy_id, (0.0, {}))
        if cached and at - fetched_at <= self.ttl_s and cached["revision"] >= revision:
            return cached
        answer = self.plane.get(
            f"/router/v1/routing-policy?policy_id={policy_id}&revision={revision}", self.key
        )
        assert answer.status == 200, answer.body
        self.fetched += 1
        document: dict[str, Any] = answer.json()
        ANSWER.validate(document)
        assert document["policy_id"] == policy_id
        self.cached[policy_id] = (at, document)
        return document


def test_plano_gets_the_same_policy_as_a_router(plane: "Plane", served: "Served") -> None:
    name = served.assignment.workload.name
    plano = Plano(plane, served.key)
    document = plano.policy(name)
    entry = plane.snapshot(served.key).json()["workloads"][name]
    assert document["revision"] == entry["revision"]
    known = {model["model"] for model in entry["baseline"]["policy"]["models"].values()}
    assert {model["model"] for model in document["routing_preferences"]} <= known
    plano.policy(name, revision=document["revision"])
    assert plano.fetched == 1, "its cached policy is new enough"
    plano.policy(name, revision=document["revision"] + 5)
    assert plano.fetched == 2, "the caller named a later revision, and gets the newest one"
    plano.policy(name, at=301)
    assert plano.fetched == 3


def test_other_and_missing_keys_see_nothing(plane: "Plane", served: "Served") -> None:
    address = f"/router/v1/routing-policy?policy_id={served.assignment.workload.name}"
    elsewhere = router_key(builders.environment().name)
    limited = router_key(served.environment.name, workloads=["unheard-of"])
    assert plane.get(address, served.key).status == 200
    assert plane.get(address, limited).status == 404
    assert plane.get(address, elsewhere).status == 404
    assert plane.get(address).status == 401
    assert plane.post(address, served.key, {}).status == 405


@pytest.mark.parametrize(
    "query",
    ["", "policy_id=", "revision=1", "policy_id=a&policy_id=b", "policy_id=a&revision=-1", "policy_id=a&revision=x",
     "policy_id=a&revision=" + "9" * 400, "policy_id=a&revision=1&revision=2", "policy_id=%ff", "policy_id=%00",
     "policy_id=%ed%a0%80", "policy_id=" + "x" * 20_000],
)  # fmt: skip
def test_a_bad_query_is_explained(plane: "Plane", served: "Served", query: str) -> None:
    answer: Answered = plane.get(f"/router/v1/routing-policy?{query}", served.key)
    assert answer.status in (400, 404, 414, 422), answer.body
    assert answer.json()["detail"]
