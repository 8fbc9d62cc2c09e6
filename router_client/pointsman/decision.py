"""What the router chose for a task, and what it does when an attempt ends."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from itertools import count
from time import monotonic, time
from typing import Any

from pointsman.assignment import Side, WorkloadAssignment
from pointsman.attempt import Attempt, Next
from pointsman.bucketing import bucket
from pointsman.evaluate import Route
from pointsman.history import LatchMemory, Window
from pointsman.steps import Steps, ended, next_step
from pointsman.token import DecisionToken

__all__ = ["Decision"]

# Hash groups of units, by which the server measures how much requests of one unit resemble each other.
GROUPS = 32
# Longer endpoints are cut, so that one careless caller cannot fill the outcome buckets' keys.
_ENDPOINT_LENGTH = 200

_sequence = count()
_process = os.urandom(8).hex()


def _after_fork() -> None:
    """A child gets its own prefix: with its parent's it would give out the parent's ids again."""
    global _process
    _process = os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Decision:
    """One task's decision. What is expensive (the id, the reason, the unit's group) is made on first use.

    A decision belongs to the one thread or coroutine that runs its task.
    """

    __slots__ = (
        "_bucket",
        "_history",
        "_id",
        "_latch",
        "_nonce",
        "_sequence",
        "_started",
        "_steps",
        "_unit",
        "assignment",
        "at",
        "mirror",
        "request",
        "route",
        "shadow",
        "side",
        "unit_ids",
    )

    route: Route
    side: Side
    shadow: Route | None
    mirror: bool

    def __init__(
        self,
        assignment: WorkloadAssignment,
        side: Side,
        request: Mapping[str, Any],
        unit_ids: Mapping[str, str],
        latch: LatchMemory | None,
    ) -> None:
        self.assignment = assignment
        self.side = side
        self.request = request
        self.unit_ids = unit_ids
        self.shadow = None
        self.mirror = False
        self.at = time()
        self._started = monotonic()
        self._sequence = next(_sequence)
        self._nonce = _process
        self._latch = latch
        self._history: Window | None = None
        self._bucket = -1
        self._unit: str | None = None
        self._id: str | None = None
        self._steps: Steps | None = None

    # What was chosen

    @property
    def environment(self) -> str:
        """The environment whose snapshot was followed."""
        return self.assignment.environment

    @property
    def workload(self) -> str:
        """The workload's name."""
        return self.assignment.name

    @property
    def rollout(self) -> str | None:
        """The running rollout's id, on either arm, or None."""
        rollout = self.assignment.rollout
        return rollout.id if rollout is not None else None

    @property
    def stage(self) -> int | None:
        """The rollout's stage, or None outside a rollout."""
        rollout = self.assignment.rollout
        return rollout.stage if rollout is not None else None

    @property
    def arm(self) -> str:
        """`baseline` or `candidate`: whose policy was served."""
        return self.side.arm

    @property
    def version(self) -> int:
        """The policy version that was served."""
        return self.side.version

    @property
    def rule(self) -> str:
        """The rule's id, or `default`, `pin`, `latch`, `guard`."""
        return self.route.rule

    @property
    def alias(self) -> str:
        """The policy's own name of the chosen model, as outcomes report it."""
        return self.route.alias

    @property
    def model(self) -> str:
        """The catalogue's name of the chosen model: call this one."""
        return self.route.model

    @property
    def params(self) -> Mapping[str, Any]:
        """The policy's parameters for the chosen model."""
        return self.route.params

    @property
    def timeouts(self) -> Mapping[str, int]:
        """`attempt_ms` and `total_ms`, as far as the policy sets them."""
        return self.side.policy.timeouts

    @property
    def batch(self) -> bool:
        """Whether the task may be deferred to a batch API."""
        return self.side.policy.batch

    @property
    def missing(self) -> tuple[str, ...]:
        """Inputs that were absent and left a rule undecided."""
        return self.route.missing

    @property
    def error(self) -> bool:
        """Whether the policy could not be evaluated and its guard answered."""
        return self.route.error

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return f"{self.side.label}: {self.route.reason}"

    @property
    def weakest(self) -> bool:
        """Whether the task began on the policy's weakest model (what the failure history is about)."""
        return self.route.alias == self.side.policy.weakest

    @property
    def agreed(self) -> bool | None:
        """In shadow: whether the candidate would have called the same model. Outside of it None."""
        return None if self.shadow is None else self.shadow.model == self.route.model

    # Who asked

    @property
    def endpoint(self) -> str:
        """The caller's `request.endpoint`, at most 200 characters; empty when none was given."""
        value = self.request.get("endpoint")
        return value[:_ENDPOINT_LENGTH] if isinstance(value, str) else ""

    @property
    def unit(self) -> str:
        """The unit of assignment: as given, else the request's id, else one made up for this task alone."""
        if self._unit is None:
            ids = self.unit_ids
            given = ids.get(self.assignment.unit)
            if given is None:
                given = ids.get("request")
            self._unit = str(given) if given is not None else self.nonce
        return self._unit

    @property
    def unit_missing(self) -> bool:
        """Whether the caller left out the workload's unit, so that it may change arms within a conversation
        or user.
        """
        kind = self.assignment.unit
        return kind != "request" and self.unit_ids.get(kind) is None

    @property
    def group(self) -> int:
        """The unit's hash group, 0 … 31. Outside a rollout the workload's name is the salt."""
        if self._bucket < 0:
            rollout = self.assignment.rollout
            self._bucket = bucket(rollout.salt if rollout is not None else self.workload, self.unit)
        return self._bucket % GROUPS

    @property
    def nonce(self) -> str:
        """What tells this decision from every other one."""
        return f"{self._nonce}{self._sequence:x}"

    @property
    def token(self) -> DecisionToken:
        """The content of `decision_id`."""
        return DecisionToken(
            self.environment, self.workload, self.rollout, self.stage, self.arm, self.version,
            self.endpoint, self.rule, self.alias, int(self.at), self.nonce,
        )  # fmt: skip

    @property
    def decision_id(self) -> str:
        """The opaque, url-safe id for later feedback."""
        if self._id is None:
            self._id = self.token.encode()
        return self._id

    # What became of it

    def next(
        self,
        attempt: Attempt,
        *,
        expected_cost_nusd: Mapping[str, int] | None = None,
        available: Container[str] | None = None,
    ) -> Next:
        """Say how the last attempt ended; learn what to do now. Never raises; at the end it repeats itself.

        expected_cost_nusd  what one call would cost, by the policy's own names, if the router can tell.
                            With it no attempt is made that would pass the budget; without it none is made
                            once the budget is spent.
        available           catalogue names that can be called; others are passed over. None: all of them.
        """
        steps = self.steps
        if steps.done is not None:
            return steps.done
        try:
            policy, costs = self.side.policy, expected_cost_nusd or {}
            step = next_step(policy, steps, attempt, self.request, self._history, costs, available)
            if step.action == "escalate":
                self._hold()
            return step
        except Exception as error:  # The caller's request must not fail because the bookkeeping did.
            return ended(steps, attempt, error)

    def _hold(self) -> None:
        escalate = self.side.policy.escalate
        conversation = self.unit_ids.get("conversation")
        if (
            self._latch is None
            or conversation is None
            or escalate is None
            or escalate.latch != "conversation"
        ):
            return
        self._latch.hold(self.workload, str(conversation))

    @property
    def steps(self) -> Steps:
        """The account: `attempts`, `retries`, `fallbacks`, `escalations`, `cost_nusd`, `latency_ms` …"""
        if self._steps is None:
            self._steps = Steps(self.route, self._started)
        return self._steps

    @property
    def escalations(self) -> int:
        """How often a stronger model was asked because an answer was not good enough."""
        return self._steps.escalations if self._steps is not None else 0

    @property
    def final_alias(self) -> str:
        """The policy's own name of the model whose answer ended the task (of the one asked last, before the
        end).
        """
        if self._steps is None:
            return self.route.alias
        return self._steps.done.alias if self._steps.done is not None else self._steps.route.alias

    def __repr__(self) -> str:
        return f"<Decision {self.workload} v{self.version} {self.arm}: {self.rule} → {self.model}>"
