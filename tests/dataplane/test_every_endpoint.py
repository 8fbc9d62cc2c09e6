"""Every endpoint in front of Django with every kind of credential, through the server that `serve` runs: who gets
access, what an accepted write stores, and that a refused one leaves only a count.

Routers send reports, not changes, so none of this is in the audit log (design: "Audit log").
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.plane import Plane, Served

# What each endpoint answers each caller; 200 means access. A limited key may not report on other workloads.
CALLERS = {
    "router": 200, "router, limited to it": 200, "router, limited to another": 422, "router of another place": 200,
    "nobody": 401, "mistyped": 401, "never issued": 401, "expired": 401, "revoked": 401, "a session": 401,
    "admin key": 403, "admin key, limited to it": 403,
}  # fmt: skip
# For monitoring; `/metrics` is open until a setting restricts it.
OPEN = ("/healthz", "/readyz", "/metrics")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint. `body` returns a valid, different body each time; `leaves` is the table that gets its rows."""

    method: str
    ok: int
    body: Callable[[Served], Any] = lambda served: None
    leaves: str = ""  # the table: `AcceptedBatch`, `Feedback`
    unseen: int = 0  # the answer if the key may not see the workload; 0: the request is about no workload
    query: str = ""  # `{}` is the workload


def _batch(served: Served) -> Any:
    from tests.support.reports import batch, bucket

    return batch(bucket(served.assignment))


def _events(served: Served) -> Any:
    from tests.support.reports import event

    return {"events": [event(served.assignment)]}


def _feedback(served: Served) -> Any:
    from pointsman.token import DecisionToken

    token = DecisionToken(
        environment=served.environment.name, workload=served.assignment.workload.name, rollout=None, stage=None,
        arm="baseline", version=1, endpoint="", rule="default", model="small", at=int(time.time()),
        nonce=uuid.uuid4().hex[:12],
    )  # fmt: skip
    return {"feedback": [{"decision_id": token.encode(), "kind": "human_review", "success": True}]}


def _samples(served: Served) -> dict[str, Any]:
    workload = served.assignment.workload.name
    return {
        "inputs": [{"workload": workload, "sample_id": uuid.uuid4().hex, "request": {"prompt_tokens": 9}}]
    }


ENDPOINTS = {
    "/router/v1/snapshot": Endpoint("GET", 200),
    "/router/v1/routing-policy": Endpoint("GET", 200, unseen=404, query="?policy_id={}"),
    "/router/v1/acks": Endpoint("POST", 204, lambda served: {"state": "applied", "revision": 1}),
    "/router/v1/outcomes": Endpoint("POST", 202, _batch, "AcceptedBatch", unseen=422),
    "/router/v1/events": Endpoint("POST", 202, _events, "AcceptedBatch", unseen=422),
    "/router/v1/feedback": Endpoint("POST", 202, _feedback, "Feedback", unseen=422),
    "/router/v1/samples": Endpoint("POST", 202, _samples, unseen=422),
    "/ofrep/v1/evaluate/flags": Endpoint("POST", 200, lambda served: {"context": {"targetingKey": "u"}}),
}


@pytest.fixture
def keys(served: Served) -> dict[str, str]:
    """Return the text that each of `CALLERS` sends."""
    from controlplane.access.actions import issue_key
    from controlplane.access.keys import new_key_text
    from controlplane.access.models import Key
    from controlplane.core import clock
    from controlplane.core.actors import SYSTEM
    from tests.support import builders
    from tests.support.plane import key_row, router_key

    place, name = served.environment.name, served.assignment.workload.name
    elsewhere = builders.served(builders.environment(), builders.workload()).environment.name

    def admin(workloads: list[str]) -> str:
        return issue_key("admin", place, "a", actor=SYSTEM, scopes=["admin"], workloads=workloads)[1]

    found = {
        "router": served.key,
        "router, limited to it": router_key(place, workloads=[name]),
        "router, limited to another": router_key(place, workloads=["another"]),
        "router of another place": router_key(elsewhere),
        "nobody": "",
        "mistyped": served.key[:-1] + ("a" if served.key[-1] != "a" else "b"),
        "never issued": new_key_text("router", place)[1],
        "expired": router_key(place),
        "revoked": router_key(place),
        "a session": "sessionid",
        "admin key": admin([]),
        "admin key, limited to it": admin([name]),
    }
    for caller, column in (("expired", "expires_at"), ("revoked", "revoked_at")):
        Key.objects.filter(pk=key_row(found[caller]).pk).update(**{column: clock.now() - timedelta(hours=1)})
    return found


def expected(endpoint: Endpoint, caller: str) -> set[int]:
    status = CALLERS[caller]
    if caller == "router of another place" and endpoint.leaves != "AcceptedBatch":
        return {endpoint.unseen or endpoint.ok}  # reports count for the key's own environment
    if status == 422:
        return {endpoint.unseen or endpoint.ok}
    return {endpoint.ok if status == 200 else status}


def rows() -> dict[str, int]:
    from controlplane.audit.models import Entry
    from rollout_app.models import AcceptedBatch, Feedback

    return {model.__name__: model.objects.count() for model in (AcceptedBatch, Feedback, Entry)}


def ask(plane: Plane, path: str, key: str, body: Any, caller: str, workload: str) -> Any:
    name = f"of {caller}"
    if ENDPOINTS[path].method == "GET":
        return plane.get(path + ENDPOINTS[path].query.format(workload), key, pointsman_router=name)
    return plane.post(path, key, body, pointsman_router=name)


def test_every_endpoint_has_a_row(plane: Plane) -> None:
    from policies_app.snapshots import ofrep

    gateway: Any = plane.gateway
    endpoints = {**gateway._endpoints, ofrep.PREFIX: gateway._remote}
    assert {path: endpoint.method for path, endpoint in endpoints.items()} == {
        p: d.method for p, d in ENDPOINTS.items()
    }, "an endpoint of the gateway without a row in ENDPOINTS"
    assert set(gateway._probes) == set(OPEN), "a probe that anybody may read must be listed in OPEN"


def test_only_a_router_gets_access(served: Served, keys: dict[str, str], plane: Plane) -> None:
    wrong, workload = [], served.assignment.workload.name
    for path, endpoint in ENDPOINTS.items():
        for caller in CALLERS:
            before = rows()
            answer = ask(plane, path, keys[caller], endpoint.body(served), caller, workload)
            what = f"{caller}: {endpoint.method} {path}: {answer.status}"
            if answer.status not in (wanted := expected(endpoint, caller)):
                wrong.append(f"{what}, not {wanted}: {answer.body[:160]!r}")
            if answer.status >= 400 and answer.headers["content-type"] != "application/problem+json":
                wrong.append(f"{what} is {answer.headers['content-type']}")
            added = {name: count - before[name] for name, count in rows().items() if count != before[name]}
            if added != ({endpoint.leaves: 1} if endpoint.leaves and answer.status < 300 else {}):
                wrong.append(f"{what} left {added}")
    assert wrong == []


def test_a_refused_caller_leaves_only_a_count(served: Served, keys: dict[str, str], plane: Plane) -> None:
    from policies_app.models import Router

    workload = served.assignment.workload.name
    refused = [caller for caller, status in CALLERS.items() if status in (401, 403)]
    for path, endpoint in ENDPOINTS.items():
        for caller in refused:
            ask(plane, path, keys[caller], endpoint.body(served), caller, workload)
    gateway: Any = plane.gateway
    for counting in (*gateway._endpoints.values(), gateway._remote):
        counted = {status: counting.answered[status] for status in (401, 403)}
        assert counted == {s: sum(CALLERS[caller] == s for caller in refused) for s in (401, 403)}
    ask(plane, "/router/v1/acks", served.key, {"state": "applied", "revision": 1}, "router", workload)
    plane.until(lambda: Router.objects.filter(instance="of router").exists())
    assert set(Router.objects.values_list("instance", flat=True)) == {
        "of router"
    }  # a refused caller is not a router


def test_a_key_reads_only_its_environment_and_workloads(
    served: Served, keys: dict[str, str], plane: Plane
) -> None:
    name = served.assignment.workload.name
    reads = {
        caller: set(plane.snapshot(keys[caller]).json()["workloads"])
        for caller, status in CALLERS.items()
        if status in (200, 422)
    }
    assert reads.pop("router of another place").isdisjoint({name})
    assert reads == {"router": {name}, "router, limited to it": {name}, "router, limited to another": set()}


def test_nothing_below_the_prefix_is_open(keys: dict[str, str], plane: Plane) -> None:
    for path in ("/router/v1/", "/router/v1/nothing", "/router/v1/snapshot/"):
        assert plane.get(path, keys["router"]).status == 404
        assert plane.get(path).status == 401


def test_a_wrong_method_is_told_the_right_one(served: Served, plane: Plane) -> None:
    for path, endpoint in ENDPOINTS.items():
        other = "POST" if endpoint.method == "GET" else "GET"
        answer = plane.begin(path, served.key, method=other, body=b"{}").result(60)
        assert (answer.status, answer.code, answer.headers["allow"]) == (
            405,
            "method_not_allowed",
            endpoint.method,
        )


@pytest.mark.parametrize("path", OPEN)
def test_anybody_may_read_a_probe(plane: Plane, path: str) -> None:
    assert plane.get(path).status in (200, 503)  # no engine runs here, so it is not ready
    assert plane.post(path, "", b"{}").status == 405


# --- duplicate keys -----------------------------------------------------------------------------------


def doubled(body: bytes) -> list[bytes]:
    """Return the same document with one key twice: at the top, spelt with an escape, and in the innermost last
    object."""
    at = body.index(b"{") + 1
    name = body[at + 1 : body.index(b'"', at + 1)]
    escaped = b"\\u%04x" % name[0] + name[1:]
    inner = body.rindex(b"{") + 1
    twice = [b'"%b":null,' % name, b'"%b" :null,' % escaped]
    return [*(body[:at] + one + body[at:] for one in twice), body[:inner] + b'"z":1,"z":1,' + body[inner:]]


@pytest.mark.parametrize("path", [path for path, endpoint in ENDPOINTS.items() if endpoint.method == "POST"])
def test_a_duplicate_key_is_refused_and_nothing_is_counted(plane: Plane, served: Served, path: str) -> None:
    import msgspec

    before = rows()
    for body in doubled(msgspec.json.encode(ENDPOINTS[path].body(served))):
        answer = plane.post(path, served.key, body)
        assert (answer.status, answer.code) == (400, "duplicate_key"), body[:200]
    assert rows() == before


def test_a_colon_or_quote_in_a_text_is_not_a_key(plane: Plane, served: Served) -> None:
    from tests.support.reports import batch, bucket

    for endpoint in ('":":"', "a:b", ":", '\\":', "\u00e4:", "{}:[]"):
        answer = plane.post(
            "/router/v1/outcomes", served.key, batch(bucket(served.assignment, endpoint=endpoint))
        )
        assert answer.status == 202, (endpoint, answer.body)


def test_a_large_body_is_checked_as_well(plane: Plane, served: Served) -> None:
    import msgspec

    from tests.support.reports import batch, bucket

    body = msgspec.json.encode(batch(*(bucket(served.assignment, endpoint=f"/{n}") for n in range(200))))
    assert len(body) > 100_000
    answer = plane.post(
        "/router/v1/outcomes", served.key, body.replace(b'"tasks":118', b'"tasks":1,"tasks":118', 1)
    )
    assert (answer.status, answer.code) == (400, "duplicate_key")
    assert plane.post("/router/v1/outcomes", served.key, body).status == 202
