"""GET /router/v1/routing-policy?policy_id=…&revision=…: Plano's proposed request for external routing policies.

Plano (https://github.com/katanemo/plano) has not shipped it. The format follows its issue 812 (9 March 2026), as read
by pull request 846 (26 March 2026, open):

    {"policy_id": "chat", "revision": 42, "schema_version": "v1",
     "routing_preferences": [{"model": "openai/gpt-4o",
                              "routing_preferences": [{"name": "coding", "description": "questions about code"}]}]}

A `policy_id` is a workload or `workload/unit`. With a unit, the arm is the one that every router assigns to that unit.
Plano caches the response for its own `ttl_seconds`, or until a caller names a higher revision.

Limits. Plano matches intents and evaluates no conditions: a rule is described by its note, or by its condition if it
has none. Second stages, parameters, retries and limits have no place in the response. Without a unit, a rollout at a
percentage returns the baseline, because one response serves many requests.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from controlplane.access.keyring import Caller
from controlplane.core.errors import InvalidInput, NotFound
from controlplane.web.replies import Reply, Request, json_reply, parameters
from pointsman.assignment import Side, WorkloadAssignment
from pointsman.bucketing import in_candidate
from policies_app.fleet.buffer import FleetBuffer
from policies_app.snapshots.cache import CachedEnvironment
from policies_app.snapshots.compiled import assignment_of

SCHEMA_VERSION = "v1"
EVERYTHING_ELSE = "any request that none of the other routes describes"
# Plano's routing model answers `other` if no route matches, so no rule may have that name.
NO_ROUTE = "other"


class RoutingPolicies:
    """The Plano endpoint. A router key sees the workloads of its environment that it may see."""

    def __init__(self, environment_of: Callable[[Caller], CachedEnvironment], fleet: FleetBuffer) -> None:
        self._environment_of = environment_of
        self._fleet = fleet

    def answer(self, request: Request, body: bytes = b"") -> Reply:
        """Return the served policy, or 304 if the tag matches. Raises `InvalidInput`, `NotFound` and `Restored`."""
        environment = self._environment_of(request.caller)
        self._fleet.used(request.caller.pk)
        policy_id = _asked_for(request.query)
        return routing_policy(
            environment, request.caller.may_report, policy_id, request.headers.get(b"if-none-match")
        )


def routing_policy(
    environment: CachedEnvironment,
    may_see: Callable[[str], bool],
    policy_id: str,
    if_none_match: bytes | None = None,
) -> Reply:
    """Return the newest policy, regardless of the revision requested; its `revision` identifies it."""
    name, _, unit = policy_id.partition("/")
    assignment = assignment_of(environment, name) if may_see(name) else None
    if assignment is None:
        raise NotFound(f"This environment serves no workload {name[:100]!r}.")
    header, revision = environment.header, environment.fragments[name].revision
    side = _side(assignment, unit)
    etag = _etag(header.epoch, revision, policy_id, side.digest)
    headers = [
        (b"etag", etag),
        (b"cache-control", b"private, max-age=%d" % max(1, header.poll_interval_ms // 1_000)),
    ]
    if if_none_match is not None and _names(if_none_match, etag):
        return Reply(304, headers)
    document = {
        "policy_id": policy_id,
        "revision": revision,
        "schema_version": SCHEMA_VERSION,
        "routing_preferences": preferences(assignment, side),
    }
    return json_reply(200, document, *headers)


def preferences(assignment: WorkloadAssignment, side: Side) -> list[dict[str, Any]]:
    """Return one entry per model, in the order in which the rules name them, with the default's last.

    A pinned workload has exactly one model.
    """
    routes = [("default", EVERYTHING_ELSE, _default(assignment, side))]
    if assignment.pinned is None:
        models, rules = side.policy.models, side.policy.data.get("rules", ())
        named = [
            (_route(rule["id"]), rule.get("note") or rule["when"], models[rule["use"]][0]) for rule in rules
        ]
        routes = named + routes
    found: dict[str, list[dict[str, str]]] = {}
    for name, description, model in routes:
        found.setdefault(model, []).append({"name": name, "description": description})
    return [{"model": model, "routing_preferences": entries} for model, entries in found.items()]


def _default(assignment: WorkloadAssignment, side: Side) -> str:
    if assignment.pinned is not None:
        return assignment.pinned.model
    return side.policy.models[side.policy.data["default"]][0]


def _side(assignment: WorkloadAssignment, unit: str) -> Side:
    """Return the unit's arm, as in every router. Without a unit, the candidate only when it serves everybody."""
    rollout, candidate = assignment.rollout, assignment.candidate
    if rollout is None or candidate is None or assignment.pinned is not None:
        return assignment.baseline
    serves = unit.strip() or rollout.mode == "full"
    return (
        candidate
        if serves and in_candidate(rollout.mode, rollout.share_pcm, rollout.salt, unit)
        else assignment.baseline
    )


def _route(rule: str) -> str:
    """Return the rule's name for Plano. Other rules have no colon in their ids, so the new name is unique."""
    return f"rule:{rule}" if rule == NO_ROUTE else rule


def _asked_for(query: bytes) -> str:
    """Return the `policy_id`. `revision` is validated but not used: only the newest policy exists."""
    found: dict[str, str] = {}
    for name, value in parameters(query):
        if name in found and name in ("policy_id", "revision"):
            raise InvalidInput(f"`{name}` is given more than once.")
        found[name] = value
    revision = found.get("revision", "0")
    if not (revision.isascii() and revision.isdigit() and len(revision) <= 20):
        raise InvalidInput(f"`revision` must be a whole number, 0 or more, not {revision[:40]!r}.")
    if not found.get("policy_id"):
        raise InvalidInput("`policy_id` must name the workload: ?policy_id=<workload>, or <workload>/<unit>.")
    return found["policy_id"]


def _etag(epoch: str, revision: int, policy_id: str, digest: str) -> bytes:
    asked = "\0".join((epoch, str(revision), policy_id, digest)).encode()
    return b'"%s"' % hashlib.sha256(asked).hexdigest()[:32].encode()


def _names(if_none_match: bytes, etag: bytes) -> bool:
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or b"*" in tags
