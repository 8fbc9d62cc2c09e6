"""A control plane for tests: it speaks the protocol over real HTTP on localhost, and stores all reports.

    with FakeControlPlane() as plane:
        plane.serve("summaries", policy)
        with plane.router() as router:
            decision = router.decide("summaries", {"prompt_tokens": 900})
            router.record(decision, success=True, cost_nusd=410_000)
        assert plane.tasks("summaries") == 1

It validates outcomes like the real one, except for catalogue and clock; events, feedback and acks are stored as they
come. `outage`, `fail` and `tamper` simulate failures. It makes no decisions about rollouts: the test moves them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pointsman.background import Pace
from pointsman.errors import PolicyInvalid, TokenInvalid
from pointsman.policy import digest, parse
from pointsman.policy.shape import check_json
from pointsman.problems import Problem
from pointsman.reporting.batch import MAX_BUCKETS
from pointsman.reporting.samples.figures import problem_of
from pointsman.router import Router
from pointsman.sync.signature import PREFIX
from pointsman.testing.reports import problems
from pointsman.testing.server import FakeServer, Reply, Request, problem
from pointsman.token import DecisionToken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["FakeControlPlane", "Reply", "Request"]

# A policy as data, as JSON or YAML text, or the path of a file with such text.
Policy = Mapping[str, Any] | str | os.PathLike[str]
_BATCH_ID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Long enough for the last flush, however slow the machine.
_AT_ONCE = Pace(first_poll_within=0, flush_every=0.05, stop_within=20)


@dataclass
class _Failure:
    status: int
    retry_after_s: float | None
    times: int | None
    path: str


class FakeControlPlane:
    """One environment, in memory. All methods may be called from any thread while routers are connected.

    environment, key, epoch   as in the snapshot, and the required key
    events    single outcomes by id, from routers that do not aggregate; stored as received
    prices    catalogue model → nano-USD per million tokens by kind; set them before `serve`
    sign      whether to sign snapshots; routers then need `public_keys`
    journal   a file for batches, written before they are acknowledged and read at the start
    """

    def __init__(
        self,
        *,
        environment: str = "test",
        key: str = "pmr_test",
        epoch: str | None = None,
        sign: bool = False,
        journal: Path | None = None,
        port: int = 0,
    ) -> None:
        self.environment, self.key = environment, key
        self.epoch = epoch or uuid.uuid4().hex
        self.revision = 0
        self.poll_interval_ms = 1_000
        self.prices: dict[str, dict[str, int | None]] = {}
        self.batches: dict[str, list[dict[str, Any]]] = {}
        self._reports: dict[str, dict[str, Any]] = {}
        self.deliveries: dict[str, int] = {}
        self.feedback: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.acks: list[dict[str, Any]] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.requests: list[Request] = []
        self.tamper: Callable[[Request, Reply], Reply] | None = None
        self.max_buckets = MAX_BUCKETS
        self._entries: dict[str, dict[str, Any]] = {}
        self._removed: dict[str, int] = {}
        self._changed = threading.Condition()
        self._failure: _Failure | None = None
        self._signing: Ed25519PrivateKey | None = _new_key() if sign else None
        self._journal = journal
        self._replay()
        self._server = FakeServer(self._answer, port)

    # Serving

    def serve(self, workload: str, policy: Policy, *, version: int = 1, unit: str = "request") -> None:
        """Make this the workload's baseline. Its rollout ends, a pin stays.

        policy   data, JSON or YAML text, or the path of such a file. Raises PolicyInvalid if it cannot be parsed
                 or encoded in a snapshot. Whether it is a valid policy is left to the router
        """
        with self._change(workload) as entry:
            entry.update(unit=unit, baseline=_version(version, policy), candidate=None, rollout=None)

    def roll_out(
        self,
        workload: str,
        policy: Policy,
        *,
        version: int = 2,
        mode: str = "percentage",
        share_pcm: int = 5_000,
        stage: int = 0,
        rollout: str = "rollout-1",
        mirror_pcm: int = 0,
        cost_cap_nusd: int | None = None,
    ) -> None:
        """Start a rollout of the workload, or move it to another stage."""
        with self._change(workload) as entry:
            entry["candidate"] = _version(version, policy)
            entry["rollout"] = {
                "id": rollout,
                "stage": stage,
                "mode": mode,
                "share_pcm": share_pcm,
                "salt": rollout,
                "mirror_pcm": mirror_pcm,
                "cost_cap_nusd": cost_cap_nusd,
            }

    def roll_back(self, workload: str) -> None:
        """Remove the candidate, in a new revision with the old content."""
        with self._change(workload) as entry:
            entry.update(candidate=None, rollout=None)

    def pin(self, workload: str, model: str | None, reason: str = "") -> None:
        """Pin the workload to one model; None removes the pin."""
        with self._change(workload) as entry:
            entry["pin"] = None if model is None else {"model": model, "reason": reason}

    def change(self, workload: str, **fields: Any) -> None:
        """Set any fields of a workload's entry, even to values that a real control plane would never send."""
        with self._change(workload) as entry:
            entry.update(fields)

    def remove(self, workload: str) -> None:
        """Remove the workload from the environment."""
        with self._changed:
            self.revision += 1
            del self._entries[workload]
            self._removed[workload] = self.revision
            self._changed.notify_all()

    def restore(self, revision: int = 1) -> None:
        """Simulate a restore from a backup: a new epoch, and a revision that may be lower."""
        with self._changed:
            self.epoch, self.revision = uuid.uuid4().hex, revision
            self._changed.notify_all()

    # Failures

    def fail(
        self,
        status: int = 503,
        *,
        retry_after_s: float | None = None,
        times: int | None = None,
        path: str = "",
    ) -> None:
        """Answer with an error, `times` times or until `recover`, for paths that contain `path`."""
        self._failure = _Failure(status, retry_after_s, times, path)
        with self._changed:
            self._changed.notify_all()

    def recover(self) -> None:
        """End the effect of `fail`."""
        self._failure = None

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Stop listening: open connections are closed, new ones refused. The port stays the same."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    # Reports

    def buckets(self, workload: str) -> list[dict[str, Any]]:
        """Return the accepted outcome buckets of a workload."""
        return [b for batch in list(self.batches.values()) for b in batch if b["workload"] == workload]

    def decided(self, workload: str) -> list[dict[str, Any]]:
        """Return the accepted counts of decisions for a workload, whether or not their outcomes were reported."""
        return self._entries_of("decided", workload)

    def cells(self, workload: str) -> list[dict[str, Any]]:
        """Return the accepted counts by the units' hash cells."""
        return self._entries_of("cells", workload)

    def _entries_of(self, member: str, workload: str) -> list[dict[str, Any]]:
        reports = list(self._reports.values())
        return [entry for r in reports for entry in r.get(member) or () if entry["workload"] == workload]

    def tasks(self, workload: str, **where: Any) -> int:
        """Return the number of accepted tasks; `where` filters by a bucket's fields, such as `arm="candidate"`."""
        found = [b for b in self.buckets(workload) if all(b[name] == value for name, value in where.items())]
        return sum(bucket["tasks"] for bucket in found)

    def wait_for(self, condition: Callable[[], object], timeout: float = 30.0) -> bool:
        """Wait until the condition is true, checking after every request. Return False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: bool(condition()), timeout)

    # Address

    @property
    def url(self) -> str:
        """The address for routers."""
        return self._server.url

    @property
    def public_keys(self) -> dict[str, str]:
        """The keys for routers if `sign` is set."""
        if self._signing is None:
            return {}
        return {"test-key": b64encode(self._signing.public_key().public_bytes_raw()).decode()}

    def router(self, *, ready: bool = True, **options: Any) -> Router:
        """Create a router that polls at once; with `ready`, wait for its first snapshot."""
        router = Router(self.url, self.key, **{"pace": _AT_ONCE, **options})
        if ready and not router.wait_ready(30):
            raise TimeoutError(f"no snapshot within 30 s: {router.status()['last_error']}")
        return router

    def __enter__(self) -> FakeControlPlane:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop()

    # The protocol

    @contextmanager
    def _change(self, workload: str) -> Iterator[dict[str, Any]]:
        with self._changed:
            before = self._entries.get(workload) or {"candidate": None, "rollout": None, "pin": None}
            entry = dict(before)
            yield entry
            self.revision += 1
            self._entries[workload] = {**entry, "revision": self.revision}
            self._removed.pop(workload, None)
            self._changed.notify_all()

    def _answer(self, request: Request) -> Reply:
        reply = self._reply(request)
        if self.tamper is not None:
            reply = self.tamper(request, reply)
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        return reply

    def _reply(self, request: Request) -> Reply:
        if (failed := self._failed(request)) is not None:
            return failed
        if request.headers.get("Authorization") != f"Bearer {self.key}":
            return problem(401, "unauthenticated")
        if request.path == "/router/v1/snapshot":
            return self._snapshot(request)
        handlers = {"outcomes": self._outcomes, "feedback": self._feedback, "acks": self._acks}
        handlers |= {"events": self._events, "samples": self._samples}
        handler = handlers.get(request.path.removeprefix("/router/v1/"))
        return handler(request.json()) if handler is not None else problem(404, "not_found")

    def _failed(self, request: Request) -> Reply | None:
        failure = self._failure
        if failure is None or failure.path not in request.path:
            return None
        if failure.times is not None:
            failure.times -= 1
            if failure.times <= 0:
                self._failure = None
        reply = problem(failure.status, "made_to_fail")
        if failure.retry_after_s is None:
            return reply
        return replace(reply, headers={**reply.headers, "Retry-After": f"{failure.retry_after_s:g}"})

    def _snapshot(self, request: Request) -> Reply:
        until = monotonic() + min(request.wait_s, 30)
        seen = request.headers.get("If-None-Match", "")
        with self._changed:
            while self._is_current(request, seen):
                left = until - monotonic()
                if left <= 0 or self._failure is not None or not self._server.running:
                    return replace(self._signed(self._body(request)), status=304, body=b"")
                self._changed.wait(min(left, 0.5))
            return self._signed(self._body(request))

    def _is_current(self, request: Request, seen: str) -> bool:
        """Return whether a router with these tags needs nothing. One that follows deltas has the tag of a delta."""
        if request.since == self.revision:
            return f'"{self._version_tag()}' in seen
        return seen.strip() == "*" or self._signed(self._body(request)).headers["ETag"] in seen

    def _body(self, request: Request) -> bytes:
        since, chosen = request.since, request.workloads or {*self._entries, *self._removed}
        delta = since is not None and since <= self.revision
        after = since if since is not None and delta else 0
        entries = {n: e for n, e in self._entries.items() if n in chosen and e["revision"] > after}
        data = {
            "format": 1,
            "environment": self.environment,
            "epoch": self.epoch,
            "revision": self.revision,
            "full": not delta,
            **({"since": since} if delta else {}),
            **({"selection": sorted(set(request.workloads))} if request.workloads else {}),
            "poll_interval_ms": self.poll_interval_ms,
            "prices": self.prices,
            "workloads": entries,
            "removed": [n for n, at in self._removed.items() if n in chosen and at > after] if delta else [],
        }
        return json.dumps(data).encode()

    def _version_tag(self) -> str:
        return f"{self.epoch}.{self.revision}."

    def _signed(self, body: bytes) -> Reply:
        tag = f'"{self._version_tag()}{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {
            "ETag": tag,
            "Pointsman-Revision": str(self.revision),
            "Content-Type": "application/json",
            "Cache-Control": "private, max-age=1, stale-if-error=604800",
        }
        if self._signing is not None:
            signature = b64encode(self._signing.sign(PREFIX + body)).decode()
            headers["Pointsman-Signature"] = f"keyid=test-key, alg=ed25519, sig={signature}"
        return Reply(200, body, headers)

    def _outcomes(self, data: dict[str, Any]) -> Reply:
        batch_id, buckets = str(data["batch_id"]).lower(), data["buckets"]
        if max(len(data.get(name) or ()) for name in ("buckets", "decided", "cells")) > self.max_buckets:
            return problem(413, "body_too_large")
        if not _BATCH_ID.fullmatch(batch_id):
            return problem(422, "invalid_input")
        if wrong := list(problems(data)):
            return problem(422, "invalid_input", problems=wrong)
        with self._changed:
            self.deliveries[batch_id] = self.deliveries.get(batch_id, 0) + 1
            if batch_id not in self.batches:
                data = {**data, "batch_id": batch_id}
                self._write(data)
                self._keep(data)
        return Reply(202, json.dumps({"accepted": len(buckets)}).encode())

    def _feedback(self, data: dict[str, Any]) -> Reply:
        with self._changed:
            graded = {(_decision(item["decision_id"]), item["kind"]) for item in self.feedback}
            for item in data["feedback"]:
                grades = (_decision(item["decision_id"]), item["kind"])
                if grades not in graded:
                    graded.add(grades)
                    self.feedback.append(item)
        return Reply(202, json.dumps({"accepted": len(data["feedback"])}).encode())

    def _samples(self, data: dict[str, Any]) -> Reply:
        wrong = [
            {"index": n, "field": found[0], "message": found[1], "list": "inputs"}
            for n, one in enumerate(data["inputs"])
            if (found := problem_of(one["request"])) is not None
        ]
        if wrong:
            return problem(422, "invalid_input", problems=wrong)
        with self._changed:
            self.samples += data["inputs"]
        return Reply(202, json.dumps({"accepted": len(data["inputs"])}).encode())

    def _acks(self, data: dict[str, Any]) -> Reply:
        with self._changed:
            self.acks.append(data)
        return Reply(204, b"")

    def _events(self, data: dict[str, Any]) -> Reply:
        with self._changed:
            for event in data["events"]:
                self.events.setdefault(event["event_id"], event)
        return Reply(202, json.dumps({"accepted": len(data["events"])}).encode())

    # The journal

    def _write(self, data: dict[str, Any]) -> None:
        if self._journal is None:
            return
        with self._journal.open("ab") as file:
            file.write(json.dumps(data).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _replay(self) -> None:
        if self._journal is None or not self._journal.exists():
            return
        *whole, cut = self._journal.read_bytes().split(b"\n")
        if cut:  # truncated by a kill: it was not acknowledged, and the next line must not be appended to it
            os.truncate(self._journal, sum(len(line) + 1 for line in whole))
        for line in whole:
            self._keep(json.loads(line))

    def _keep(self, data: dict[str, Any]) -> None:
        self._reports[data["batch_id"]] = data
        self.batches[data["batch_id"]] = data["buckets"]


def _version(version: int, policy: Policy) -> dict[str, Any]:
    data = _read(policy)
    return {"version": version, "digest": digest(data), "policy": data}


def _read(policy: Policy) -> dict[str, Any]:
    if isinstance(policy, os.PathLike):
        return parse(Path(policy).read_bytes()).data
    if isinstance(policy, str):
        return parse(policy).data
    found: list[Problem] = []
    if not check_json(
        policy, lambda path, code, message, *_, **__: found.append(Problem(path, code, message))
    ):
        raise PolicyInvalid(found)
    return dict(policy)


def _decision(decision_id: str) -> str:
    """Return the decision's nonce. Unlike the id, it does not change when the task is recorded."""
    try:
        return DecisionToken.decode(decision_id).nonce
    except TokenInvalid:
        return decision_id


def _new_key() -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()
