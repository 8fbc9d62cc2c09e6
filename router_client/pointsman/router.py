"""The router's door: local decisions, outcomes on their way, and one thread that keeps the policy fresh.

    router = Router("https://pointsman.example", key, store="/var/lib/gateway/pointsman")
    decision = router.decide("support-summaries", {"prompt_tokens": 900}, {"conversation": "c-17"})
    …call decision.model…
    router.record(decision, success=True, cost_nusd=410_000, latency_ms=812)

Safe to share between threads and coroutines; after a fork the child goes on with the policy it has and a
thread of its own, and what the parent had recorded stays the parent's to send.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import os
import socket
import time
import weakref
from collections.abc import Callable, Container, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pointsman.background import BackgroundThread, Pace
from pointsman.choose import decide
from pointsman.costs import NO_PRICES, Prices, Usage
from pointsman.decision import Decision
from pointsman.errors import ConfigurationError
from pointsman.history import Memory
from pointsman.mirror_brake import MirrorBrake
from pointsman.reporting.buckets import Outcome
from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.metrics import Counter, register
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.reporting.recording import TaskResult, TypicalCosts, bucket_key, learn, mirror_end, outcome_of
from pointsman.reporting.spool import Spool
from pointsman.sync.connection import Connection
from pointsman.sync.defaults import DefaultAssignments, unknown_workload
from pointsman.sync.headers import fits_header
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.signature import PublicKeys, Trusted
from pointsman.sync.snapshot import Snapshot
from pointsman.sync.store import DiskStore
from pointsman.task_log.line import feedback_line, task_line
from pointsman.task_log.writer import TaskLog
from pointsman.version import VERSION

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry

__all__ = ["FEEDBACK_KINDS", "Router"]

log = logging.getLogger("pointsman")

FEEDBACK_KINDS = ("human_review", "satisfaction", "downstream")
_ENDS_WITHIN_S = 0.2  # the poller, besides its last flush; and the task log
_UNKNOWN_TOLD = 100  # names of workloads: one that makes them up must not fill the log
_CLIENT = f"pointsman-python/{VERSION}"
_numbers = itertools.count()
_Path = str | os.PathLike[str]


class Router:
    """Follows one environment's policies.

    url            the control plane, without `/router/v1`
    key            the router key, or a function that gives the present one
    snapshots_url  where snapshots are published, a CDN in front of a bucket: polled there, without the key and
                   without long polls; outcomes, feedback and acks still go to `url`. Needs `public_keys`
    environment    refuse snapshots of another environment; None: whatever the key belongs to
    workloads      follow only these; empty: all that the key may see
    store          a file for the last known good; without it a restart in an outage starts with `defaults`
    spool          a directory for outcomes and feedback that wait; without it they wait in memory only
    task_log       a file, or a `TaskLog`: a line of figures for each finished task, for estimates of other policies
    mirror_brake   when mirrors stop that fail, hang or are slow; None: half of the last 20, for five minutes
    public_keys    `{key id: Ed25519 public key}` or "key id:base64": trust only what one of them signed
    defaults       what to do before the first snapshot: `{workload: model name or policy document}`
    instance       names this process on the fleet page; made up when not given, and anew in a forked child
    clock          Unix seconds, for tests and replays: stamps decisions
    pace           how often to poll at first and to flush
    wait_s         long poll, 0 … 30 seconds
    max_bytes      the largest snapshot to accept
    http           options for httpx.AsyncClient: `verify`, `cert`, `proxy`, …
    start          False: no thread until `start()`

    Raises ConfigurationError for what cannot work. Nothing here waits for the network; `wait_ready` does.
    """

    def __init__(
        self,
        url: str,
        key: str | Callable[[], str],
        *,
        snapshots_url: str | None = None,
        environment: str | None = None,
        workloads: tuple[str, ...] | list[str] = (),
        store: _Path | DiskStore | None = None,
        spool: _Path | Spool | None = None,
        task_log: _Path | TaskLog | None = None,
        mirror_brake: MirrorBrake | None = None,
        public_keys: Trusted | None = None,
        defaults: Mapping[str, str | Mapping[str, Any]] | None = None,
        instance: str | None = None,
        clock: Callable[[], float] | None = None,
        pace: Pace | None = None,
        wait_s: int = 25,
        max_bytes: int = 64 << 20,
        http: Mapping[str, Any] | None = None,
        start: bool = True,
    ) -> None:
        if snapshots_url is not None and public_keys is None:
            raise ConfigurationError(
                "snapshots_url needs public_keys: what lies in a bucket is trusted by its signature alone"
            )
        self._connection = Connection(
            url,
            key,
            _CLIENT,
            snapshots_url=snapshots_url,
            workloads=tuple(workloads),
            wait_s=wait_s,
            max_bytes=max_bytes,
            options=http or {},
        )
        self._pace, self._clock, self._named = pace or Pace(), clock, instance
        self.instance = _instance_name(instance)
        keys = PublicKeys(public_keys) if public_keys is not None else None
        kept = DiskStore(store) if isinstance(store, str | os.PathLike) else store
        self._good = LastKnownGood(environment=environment, keys=keys, store=kept)
        on_disk = Spool(spool) if isinstance(spool, str | os.PathLike) else spool
        self._defaults = DefaultAssignments(defaults or {})
        self._outcomes = OutcomeBuffer(self.instance, spool=on_disk)
        self._tallies = self._outcomes.decisions
        self._feedback = FeedbackQueue(spool=on_disk.feedback() if on_disk is not None else None)
        self._task_log = TaskLog(task_log) if isinstance(task_log, str | os.PathLike) else task_log
        self._memory = Memory(prices=self._prices, mirrors=mirror_brake or MirrorBrake())
        self._costs = TypicalCosts()
        self._count = _Counts()
        self._told: set[str] = set()
        self._unknown: set[str] = set()
        self._started = self._closed = False
        self._good.load()
        self._background = self._new_background()
        _routers.add(self)
        if start:
            self.start()

    def start(self) -> None:
        """Start following the control plane; once is enough."""
        if not self._started:
            self._started = True
            self._background.start()
            if self._task_log is not None:
                self._task_log.start()

    def decide(
        self,
        workload: str,
        request: Mapping[str, Any] | None = None,
        unit_ids: Mapping[str, str] | None = None,
        *,
        available: Container[str] | None = None,
    ) -> Decision:
        """Choose the model for one task: microseconds, no lock, no network, and it never raises.

        request    the `request.*` inputs that are known: `{"prompt_tokens": 900, "attributes": {…}}`
        unit_ids   ids by kind, so that a unit stays with its arm: `{"conversation": …, "user": …}`
        available  catalogue names that this router can call; None: all

        Without a policy for the workload its default answers; without that `decision.model` is empty, so
        `decision.model or "my-model"` always names one.
        """
        count = self._count
        count.decisions.hit()
        snapshot = self._good.current
        try:
            assignment = snapshot.workloads.get(workload) if snapshot is not None else None
            if assignment is None:
                count.decisions_without_policy.hit()
                assignment = self._defaults.assignment(workload)
                if snapshot is not None and workload not in self._unknown:
                    self._say_unknown(workload, snapshot)
        except Exception:  # A name that cannot even be looked up, such as a list.
            assignment = self._defaults.assignment("")
        decision = decide(assignment, request, unit_ids, self._memory, available)
        if decision.route.error:
            count.evaluation_errors.hit()
        try:
            given = decision.unit_ids.get(assignment.unit)
            if (type(given) is not str or not given or given.isspace()) and decision.unit_missing:
                count.unit_missing.hit()
            if self._clock is not None:
                decision.at = self._clock()
            # Counted, whether or not it will be reported.
            tallies, at = self._tallies, decision.at
            tally = tallies.now.get(decision.side)
            if tally is None or not tally.since <= at < tally.until:
                tally = tallies.turn(assignment, decision.side, at)
            tally.hit()
            if decision.differing:
                tally.differs()
            elif decision.differing is None and assignment.comparison is not None:
                tally.unknown()
        except Exception:  # Ids that fail at every look, or the caller's own clock.
            count.evaluation_errors.hit()
        return decision

    def _say_unknown(self, workload: str, snapshot: Snapshot) -> None:
        """Say once that a name is served nowhere: most often it is misspelt."""
        if isinstance(workload, str) and len(self._unknown) < _UNKNOWN_TOLD:
            self._unknown.add(workload)
            log.error("%s", unknown_workload(workload, snapshot))

    def _prices(self) -> Prices:
        snapshot = self._good.current
        return snapshot.prices if snapshot is not None else NO_PRICES

    def record(
        self,
        decision: Decision,
        success: bool | None = None,
        *,
        quality: float | None = None,
        confidence: float | None = None,
        cost_nusd: float | None = None,
        cost_usd: float | None = None,
        usage: Usage | None = None,
        latency_ms: float | None = None,
        error: str | None = None,
        shadow_cost_nusd: float | None = None,
        mirror_success: bool | None = None,
        mirror_cost_nusd: float | None = None,
        mirror_error: str | None = None,
        mirror_latency_ms: float | None = None,
    ) -> None:
        """Say what came of a task, once, at its end. Never raises, never waits.

        success     None: nobody graded it (yet; `feedback` may, later)
        quality, confidence   0 … 1
        cost_nusd   whole nano-US-dollars of all attempts; without it what `decision.next` was told
        cost_usd    the same in dollars
        usage       the tokens of the one call, priced by the snapshot
        latency_ms  until the final answer; likewise
        error       the kind, when the task ended without an answer; likewise
        shadow_cost_nusd   in shadow: what the candidate would have cost, with its second stage, if the caller can tell
        mirror_success, mirror_cost_nusd   when `decision.mirror` asked for the other arm's model and it ran
        mirror_error, mirror_latency_ms    when it gave no answer: any word; how long it took. The brake goes by them
        """
        given = TaskResult(
            success, quality, confidence, cost_nusd, cost_usd, usage, latency_ms, error,
            shadow_cost_nusd, mirror_success, mirror_cost_nusd, mirror_error, mirror_latency_ms,
        )  # fmt: skip
        try:
            self._record(decision, given)
        except Exception:  # The caller's request must not fail because an outcome did.
            if not self._count.outcomes_invalid.hit():
                log.exception("an outcome could not be recorded; further ones are only counted")

    def _record(self, decision: Decision, given: TaskResult) -> None:
        outcome, left_out = outcome_of(decision, given, self._costs)
        self._end_mirror(decision, outcome, *mirror_end(given, left_out))
        for figure, why in left_out:
            self._count.figures_invalid.hit()
            if figure not in self._told:
                self._told.add(figure)
                log.warning("%s left out of an outcome, further ones are only counted: %s", figure, why)
        learn(self._memory.history, decision, outcome.success)
        decision.recorded_as(outcome.success, outcome.cost_nusd)
        if decision.version == 0:  # a stand-in's: the control plane knows no such version
            self._count.outcomes_without_policy.hit()
            return
        rollout = decision.assignment.rollout
        cap = rollout.cost_cap_nusd if rollout is not None else None
        self._outcomes.record(bucket_key(decision), outcome, cap, decision.cell)
        self._log_task(lambda kept: task_line(decision, outcome, kept.attributes, kept.secret))

    def _end_mirror(
        self, decision: Decision, outcome: Outcome, failed: bool | None, latency_ms: float | None
    ) -> None:
        rollout, brake = decision.assignment.rollout, self._memory.mirrors
        if rollout is not None and rollout.mirror_pcm:
            brake.ended(rollout.id, decision.workload, decision.nonce, failed=failed, latency_ms=latency_ms)
        if outcome.mirror_failed:
            self._count.mirrors_failed.hit()
        if outcome.mirror_braked:
            self._count.mirrors_braked.hit()

    def _log_task(self, line: Callable[[TaskLog], dict[str, Any]]) -> None:
        """After all else is kept: a line that cannot be made is counted, and nothing else is lost."""
        kept = self._task_log
        if kept is not None:
            try:
                kept.put(line(kept))
            except Exception:
                kept.drop()

    def feedback(
        self, decision_id: str, kind: str, *, success: bool | None = None, score: float | None = None
    ) -> None:
        """A later word on a task: review, satisfaction, downstream completion; one per decision and kind.

        Raises ValueError for an unknown kind, a score outside 0 … 1, or nothing said at all; TypeError for what
        is no text, true or false, or number.
        """
        if kind not in FEEDBACK_KINDS:
            raise ValueError(f"feedback is one of {', '.join(FEEDBACK_KINDS)}, not {kind!r}")
        if success is None and score is None:
            raise ValueError("feedback says success, score, or both")
        if score is not None and not 0 <= score <= 1:
            raise ValueError(f"a score lies between 0 and 1, not at {score!r}")
        word = {"decision_id": decision_id, "kind": kind, "success": success, "score": score}
        self._feedback.put({name: value for name, value in word.items() if value is not None})
        self._log_task(lambda _: feedback_line((self._clock or time.time)(), word))

    def wait_ready(self, timeout: float = 10.0) -> bool:
        """Poll now and wait until there is a snapshot, from disk or network. False after `timeout` s.

        Raises ConfigurationError at once when the answer says that waiting is no use: nothing speaks the protocol
        at `url`, or the key is none that it takes. Decisions go on by `defaults` all the same.
        """
        if self._good.current is None:
            poller = self._background.poller
            self._background.poke()
            poller.settled.wait(timeout)
            if self._good.current is None and poller.setup_problem is not None:
                raise ConfigurationError(poller.setup_problem)
        return self._good.current is not None

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot to follow."""
        return self._good.current is not None

    @property
    def revision(self) -> int | None:
        """The applied revision; None before the first snapshot."""
        snapshot = self._good.current
        return snapshot.revision if snapshot is not None else None

    def status(self) -> dict[str, Any]:
        """What an operator asks: what is applied, how stale it is, what waits, what was lost, what failed."""
        good, poller, outcomes = self._good, self._background.poller, self._outcomes
        sender = self._background.sender
        snapshot, confirmed = good.current, good.confirmed_at
        return {
            "instance": self.instance,
            "ready": snapshot is not None,
            "environment": snapshot.environment if snapshot else good.environment,
            "epoch": snapshot.epoch if snapshot else None,
            "revision": snapshot.revision if snapshot else None,
            "staleness_s": max(0.0, time.time() - confirmed) if snapshot and confirmed is not None else None,
            "workloads": len(snapshot.workloads) if snapshot else 0,
            "rejected_policies": len(snapshot.rejected) if snapshot else 0,
            "rejected": [r.workload for r in snapshot.rejected] if snapshot else [],
            "workloads_unknown": sorted({*self._unknown, *poller.workloads_missing}),
            "last_error": poller.last_error,
            "sending_error": sender.last_error,
            "clock_ahead_s": sender.clock_ahead_s,
            "failures_in_a_row": poller.failures_in_a_row,
            "polls": poller.polls,
            "poll_failures": poller.poll_failures,
            "snapshots_applied": poller.snapshots_applied,
            "snapshots_refused": poller.snapshots_refused,
            "store_problem": good.store_problem,
            "store_errors": good.store_errors,
            "outcomes_waiting": outcomes.tasks_waiting,
            "batches_waiting": outcomes.batches_waiting,
            "outcomes_recorded": outcomes.recorded,
            "outcomes_accepted": outcomes.accepted,
            "outcomes_dropped": outcomes.dropped,
            "outcomes_refused": outcomes.refused,
            "feedback_waiting": len(self._feedback),
            "feedback_dropped": self._feedback.dropped,
            "mirrors_stopped": self._memory.mirrors.braked,
            "task_log_written": self._task_log.written if self._task_log else 0,
            "task_log_dropped": self._task_log.dropped if self._task_log else 0,
            "task_log_problem": self._task_log.problem if self._task_log else None,
            **self._count.values(),
        }

    def export_metrics(self, registry: CollectorRegistry | None = None) -> object:
        """Export `status()` to Prometheus; returns the collector. Needs the extra `prometheus`."""
        return register(self.status, registry)

    def close(self) -> None:
        """Stop: cancel the poll, flush the outcomes, spool what is left. Within a second, or as `Pace.stop_within`
        says. Decisions go on.
        """
        if self._closed:
            return
        self._closed = True
        _routers.discard(self)
        within_s = self._pace.stop_within + _ENDS_WITHIN_S
        if self._started and not self._background.stop(within_s):
            log.warning("the background thread did not end within %.1f s", within_s)
        if self._task_log is not None:
            self._task_log.close(_ENDS_WITHIN_S)
        self._outcomes.seal()
        self._feedback.seal()
        lost, words = self._outcomes.abandon(), self._feedback.abandon()
        if lost or words:
            log.warning(
                "closed with %d outcomes and %d words of feedback not sent; a spool would keep them",
                lost,
                words,
            )

    async def aclose(self) -> None:
        """`close` for coroutines: the loop goes on meanwhile."""
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Router:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _new_background(self) -> BackgroundThread:
        return BackgroundThread(
            self._connection, self.instance, self._good, self._outcomes, self._feedback, self._pace
        )

    def _after_fork_in_child(self) -> None:
        """The parent's thread is not here, its locks may be held for ever, its outcomes are its own."""
        self.instance = _forked_name(self._named)
        self._outcomes.restart(self.instance)
        self._tallies = self._outcomes.decisions
        self._feedback.restart()
        self._count = _Counts()
        self._background = self._new_background()
        if self._task_log is not None:
            self._task_log.restart()
        if self._started:
            try:
                self._background.start()
                if self._task_log is not None:
                    self._task_log.start()
            except RuntimeError as error:  # a child of a process that is ending
                log.warning("the forked process follows no policy changes: %s", error)


class _Counts:
    """What happens on the path of a request; counted without locks."""

    def __init__(self) -> None:
        self.decisions = Counter()
        self.decisions_without_policy = Counter()
        self.evaluation_errors = Counter()
        self.unit_missing = Counter()
        self.outcomes_invalid = Counter()
        self.outcomes_without_policy = Counter()
        self.figures_invalid = Counter()
        self.mirrors_failed = Counter()
        self.mirrors_braked = Counter()

    def values(self) -> dict[str, int]:
        return {name: counter.value for name, counter in vars(self).items()}


def _instance_name(given: str | None) -> str:
    """At most 128 printable ASCII characters, as the protocol wants; made up when none is given."""
    if given is None:
        host = "".join(c for c in socket.gethostname() if c.isascii() and c.isprintable())[:80]
        return f"{host or 'router'}-{os.getpid()}-{next(_numbers)}-{os.urandom(3).hex()}"
    if not given or len(given) > 128 or not fits_header(given):
        raise ConfigurationError(f"instance must be 1 to 128 printable ASCII characters, not {given!r}")
    return given


def _forked_name(given: str | None) -> str:
    """A child's own name: readback counts processes, and two under one name would pass for one."""
    if given is None:
        return _instance_name(None)
    suffix = f"-{os.getpid()}-{os.urandom(2).hex()}"
    return given[: 128 - len(suffix)] + suffix


_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for router in list(_routers):
        router._after_fork_in_child()


def _before_fork() -> None:
    for router in list(_routers):
        router._background.pause()


def _after_fork_in_parent() -> None:
    for router in list(_routers):
        router._background.resume()


def _at_exit() -> None:
    for router in list(_routers):
        router.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )
