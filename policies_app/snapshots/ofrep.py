"""OFREP 0.3: workloads as feature flags over HTTP, for OpenFeature's remote providers.

    POST /ofrep/v1/evaluate/flags/<workload>     one workload, with the id of its decision
    POST /ofrep/v1/evaluate/flags                all workloads that the key may see, with an ETag

It uses the same snapshot, evaluator and buckets as a router, so a remote evaluation and a decision in process give the
same arm and model. https://github.com/open-feature/protocol

Limits. A remote evaluation is a decision without an outcome: report cost and success with `POST /router/v1/events`, or
as feedback on `metadata.decision_id`. `history.*` is unknown here, and the protocol has no place for a policy's second
stage.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from controlplane.access.keyring import Caller
from controlplane.core import strictjson
from controlplane.core.errors import MalformedBody, NotFound
from controlplane.web.replies import Reply, Request, json_reply
from pointsman.assignment import WorkloadAssignment
from pointsman.choose import decide
from pointsman.integrations.flags import inputs_of, metadata_of, reason_of, units_of
from policies_app.snapshots.cache import CachedEnvironment, Selection
from policies_app.snapshots.compiled import assignment_of

_MAX_CONTEXT = 64 * 1024  # the largest request in bytes


PREFIX = "/ofrep/v1/evaluate/flags"


class RemoteEvaluation:
    """The OFREP endpoint. A router key sees the workloads of its environment that it may see."""

    def __init__(self, environment_of: Callable[[Caller], CachedEnvironment]) -> None:
        self._environment_of = environment_of

    def evaluate(self, request: Request, body: bytes) -> Reply:
        """Return the evaluation of one workload or of all.

        Raises `Restored` and `Unavailable`: an answer without flags would make a provider drop those that it has.
        """
        environment = self._served(request.caller)
        name = request.path.removeprefix(PREFIX).removeprefix("/")
        if name:
            return evaluate_one(environment, request.caller.workloads, name, body)
        return evaluate_all(
            environment, request.caller.workloads, body, request.headers.get(b"if-none-match")
        )

    def _served(self, caller: Caller) -> CachedEnvironment | None:
        try:
            return self._environment_of(caller)
        except NotFound:
            return None  # it was deleted, so it has no flags


class ContextRefused(ValueError):
    """An invalid evaluation request. `code` is OFREP's error code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


def evaluate_one(
    environment: CachedEnvironment | None, selection: Selection, name: str, body: bytes
) -> Reply:
    """Evaluate one workload: 200, 400 for an invalid context, 404 if it is not served or not visible to the key."""
    try:
        key, context = _context(body)
    except ContextRefused as refused:
        return json_reply(400, {"key": name, "errorCode": refused.code, "errorDetails": refused.detail})
    visible = selection is None or name in selection
    assignment = assignment_of(environment, name) if environment is not None and visible else None
    if assignment is None:
        detail = f"This environment serves no workload {name!r}."
        return json_reply(404, {"key": name, "errorCode": "FLAG_NOT_FOUND", "errorDetails": detail})
    return json_reply(200, _evaluation(assignment, key, context))


def evaluate_all(
    environment: CachedEnvironment | None, selection: Selection, body: bytes, if_none_match: bytes | None
) -> Reply:
    """Evaluate every workload that the key may see. 304 if neither the revision nor the context has changed."""
    try:
        key, context = _context(body)
    except ContextRefused as refused:
        return json_reply(400, {"errorCode": refused.code, "errorDetails": refused.detail})
    names = sorted(environment.fragments) if environment is not None else []
    if selection is not None:
        names = [name for name in names if name in selection]
    etag = _etag(environment, names, key, context)
    headers = [(b"etag", etag), (b"cache-control", b"private, no-cache")]
    if if_none_match is not None and etag in (tag.strip() for tag in if_none_match.split(b",")):
        return Reply(304, headers)
    found = (assignment_of(environment, name) for name in names if environment is not None)
    flags = [_evaluation(assignment, key, context) for assignment in found if assignment is not None]
    return json_reply(200, {"flags": flags, "metadata": _revision(environment)}, *headers)


def _context(body: bytes) -> tuple[str | None, Mapping[str, Any]]:
    """Return (targeting key, attributes). Raises `ContextRefused`."""
    if len(body) > _MAX_CONTEXT:
        raise ContextRefused("INVALID_CONTEXT", f"A context may have at most {_MAX_CONTEXT:,} bytes.")
    try:
        strictjson.refuse_too_deep(body)
        document = msgspec.json.decode(body) if body.strip() else {}
    except MalformedBody as error:
        raise ContextRefused("PARSE_ERROR", error.detail) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ContextRefused("PARSE_ERROR", f"The request is not JSON: {error}.") from None
    context = document.get("context", {}) if isinstance(document, dict) else None
    if not isinstance(context, dict):
        raise ContextRefused("INVALID_CONTEXT", 'The request must be {"context": {"targetingKey": …, …}}.')
    key = context.get("targetingKey")
    if key is not None and not isinstance(key, str):
        raise ContextRefused("INVALID_CONTEXT", "`targetingKey` must be a string.")
    return key, {name: value for name, value in context.items() if name != "targetingKey"}


def _evaluation(
    assignment: WorkloadAssignment, key: str | None, context: Mapping[str, Any]
) -> dict[str, Any]:
    decision = decide(assignment, inputs_of(context), units_of(key, context))
    params = {f"params.{name}": value for name, value in decision.params.items() if _is_plain(value)}
    return {
        "key": assignment.name,
        "value": decision.model,
        "variant": decision.alias,
        "reason": reason_of(decision),
        "metadata": {**metadata_of(decision), **params},
    }


def _is_plain(value: Any) -> bool:
    """Return whether a value is allowed in flag metadata: text, numbers and booleans."""
    return isinstance(value, (str, int, float, bool))


def _etag(
    environment: CachedEnvironment | None, names: list[str], key: str | None, context: Mapping[str, Any]
) -> bytes:
    header = environment.header if environment is not None else None
    asked = [header and header.epoch, header and header.revision, names, key, context]
    return b'"%s"' % hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32].encode()


def _revision(environment: CachedEnvironment | None) -> dict[str, Any]:
    if environment is None:
        return {}
    return {"environment": environment.header.name, "revision": environment.header.revision}
