"""A router's decision for a task, and the steps that follow each attempt."""

from __future__ import annotations

import os
from collections.abc import Container, Mapping
from itertools import count
from time import monotonic, time
from typing import Any

from pointsman.assignment import Side, WorkloadAssignment
from pointsman.attempt import Attempt, Next
from pointsman.bucketing import cell, mirrored
from pointsman.comparison import AGREE, SAME
from pointsman.costs import NO_PRICES, Prices, expected_costs
from pointsman.evaluate import Route
from pointsman.given import id_text
from pointsman.history import Memory, Window
from pointsman.steps import Steps, ended, next_step
from pointsman.token import DecisionToken

__all__ = ["Decision"]

# Longer endpoints are truncated, so that one careless caller cannot create huge bucket keys.
_ENDPOINT_LENGTH = 200

_sequence = count()
_process = os.urandom(8).hex()


def _after_fork() -> None:
    """Give a forked child its own prefix; otherwise it would reuse its parent's ids."""
    global _process
    _process = os.urandom(8).hex()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _TaskState:
    """The state of a task, created on first use so that a decision stays cheap.

    steps        its attempts
    other_steps  the same attempts under the other policy, as long as both agree
    recorded     (success, cost_nusd) once the task is recorded
    id           the `decision_id` once it was created
    mirror       whether the task may be mirrored, once asked; `braked`: only the brake prevented it
    """

    __slots__ = ("braked", "id", "mirror", "other_steps", "recorded", "steps")

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.other_steps: Steps | None = None
        self.recorded: tuple[bool | None, int | None] | None = None
        self.id: str | None = None
        self.mirror: bool | None = None
        self.braked = False


class Decision:
    """The decision for one task. Expensive parts (the id, the reason) are computed on first use.

    A decision must be used only by the thread or coroutine that runs its task.
    """

    __slots__ = (
        "_state", "_memory", "_nonce", "_sequence", "_started", "_unit", "assignment", "at",
        "differing", "other", "request", "route", "side", "unit_ids", "window",
    )  # fmt: skip

    route: Route
    side: Side
    # The route pair if the two policies of a rollout treat this task differently; `AGREE` ("") if they do
    # not; None if unknown. `next` may still find that their next steps differ.
    differing: str | None
    # The other policy's choice, while both may serve.
    other: Route | None

    def __init__(
        self,
        assignment: WorkloadAssignment,
        side: Side,
        request: Mapping[str, Any],
        unit_ids: Mapping[str, str],
        memory: Memory | None = None,
    ) -> None:
        self.assignment = assignment
        self.side = side
        self.request = request
        self.unit_ids = unit_ids
        self.differing = self.other = None
        self.at = time()
        self._started = monotonic()
        self._sequence = next(_sequence)
        self._nonce = _process
        self._memory = memory
        self.window: Window | None = None
        self._unit: str | None = None
        self._state: _TaskState | None = None

    # The choice

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
        """The running rollout's id, on either arm; None outside a rollout and under a pin."""
        return self.assignment.place[0]

    @property
    def stage(self) -> int | None:
        """The rollout's stage; None outside a rollout and under a pin."""
        return self.assignment.place[1]

    @property
    def arm(self) -> str:
        """The arm whose policy was used: `baseline` or `candidate`."""
        return self.side.arm

    @property
    def version(self) -> int:
        """The policy version that was used."""
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
        """The catalogue's name of the chosen model, which the caller must call."""
        return self.route.model

    @property
    def params(self) -> Mapping[str, Any]:
        """The policy's parameters for the chosen model."""
        return self.route.params

    @property
    def timeouts(self) -> Mapping[str, int]:
        """`attempt_ms` and `total_ms`, if the policy sets them."""
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
        """Whether the policy could not be evaluated, so that its guard was used."""
        return self.route.error

    @property
    def reason(self) -> str:
        """The reason in one sentence."""
        return f"{self.side.label}: {self.route.reason}"

    @property
    def weakest(self) -> bool:
        """Whether the task started on the policy's weakest model, which the failure history is about."""
        return self.route.alias == self.side.policy.weakest

    @property
    def shadow(self) -> Route | None:
        """In shadow, the candidate's choice; otherwise None."""
        rollout = self.assignment.rollout
        return self.other if rollout is not None and rollout.mode == "shadow" else None

    @property
    def mirror(self) -> bool:
        """In shadow, whether the candidate's model may run as well, to compare. The value does not change."""
        rollout = self.assignment.rollout
        if (
            rollout is None
            or self.shadow is None
            or not mirrored(rollout.mirror_pcm, rollout.salt, self.unit)
        ):
            return False
        state = self._task_state
        if state.mirror is None:
            brake = self._memory.mirrors if self._memory is not None else None
            state.mirror = brake is None or brake.lets(rollout.id, self.workload, self.nonce)
            state.braked = not state.mirror
        return state.mirror

    @property
    def mirror_braked(self) -> bool:
        """Whether `mirror` is False because mirrors of this rollout fail, hang or are slow."""
        return self._state is not None and self._state.braked

    @property
    def prices(self) -> Prices:
        """The snapshot's prices, which convert `usage` into a cost."""
        return self._memory.prices() if self._memory is not None else NO_PRICES

    @property
    def agreed(self) -> bool | None:
        """In shadow, whether the candidate would have called the same model; otherwise None."""
        shadow = self.shadow
        return None if shadow is None else shadow.model == self.route.model

    # The request

    @property
    def endpoint(self) -> str:
        """The caller's `request.endpoint`, at most 200 characters; empty if none was given."""
        value = self.request.get("endpoint")
        return value[:_ENDPOINT_LENGTH] if isinstance(value, str) else ""

    @property
    def unit(self) -> str:
        """The unit of assignment: as given, or the request's id, or else one generated for this task.

        What is no id counts as missing, such as a blank text or NaN; otherwise all tasks without an id would go to the
        same arm.
        """
        if self._unit is None:
            self._unit = self._id_of(self.assignment.unit) or self._id_of("request") or self.nonce
        return self._unit

    @property
    def unit_missing(self) -> bool:
        """Whether the caller omitted the workload's unit, so that a conversation or user may change arms."""
        kind = self.assignment.unit
        return kind != "request" and self._id_of(kind) is None

    @property
    def conversation(self) -> str | None:
        """The conversation's id, None if none was given."""
        return self._id_of("conversation")

    @property
    def lasting_unit(self) -> str | None:
        """The id that later tasks may share with this one: the unit, or the conversation if the unit is the request."""
        return self.conversation if self.assignment.unit == "request" else self.unit

    def _id_of(self, kind: str) -> str | None:
        return id_text(self.unit_ids.get(kind))

    @property
    def cell(self) -> int | None:
        """The unit's cell, 0 … 1,023, the same before and during rollouts; None if each request is its own unit."""
        return None if self.assignment.unit == "request" else cell(self.workload, self.unit)

    @property
    def nonce(self) -> str:
        """The unique id of this decision."""
        return f"{self._nonce}{self._sequence:x}"

    @property
    def token(self) -> DecisionToken:
        """The content of `decision_id`."""
        recorded = self._state.recorded if self._state is not None else None
        success, cost_nusd = recorded or (None, None)
        model = self.alias if recorded is None else self.final_alias
        return DecisionToken(
            self.environment, self.workload, self.rollout, self.stage, self.arm, self.version,
            self.endpoint, self.rule, model, int(self.at), self.nonce,
            self.differing, self.cell, recorded is not None, success, cost_nusd,
        )  # fmt: skip

    @property
    def decision_id(self) -> str:
        """The opaque, URL-safe id for later feedback. After `record` it also contains the grade and the cost."""
        state = self._task_state
        if state.id is None:
            state.id = self.token.encode()
        return state.id

    @property
    def is_recorded(self) -> bool:
        """Whether the task was recorded: an outcome counts once."""
        return self._state is not None and self._state.recorded is not None

    def recorded_as(self, success: bool | None, cost_nusd: int | None) -> None:
        """Note how the task was recorded, for later tokens."""
        self._task_state.recorded, self._task_state.id = (success, cost_nusd), None

    # The attempts

    def next(
        self,
        attempt: Attempt,
        *,
        expected_cost_nusd: Mapping[str, int] | None = None,
        available: Container[str] | None = None,
    ) -> Next:
        """Report how the last attempt ended and return the next step. Never raises; after the end it repeats itself.

        expected_cost_nusd  the cost of one call by the policy's own model names, if the router knows it.
                            With it no attempt is made that would exceed the budget; without it none is made
                            once the budget is spent. An unusable figure, such as dollars, is unknown.
        available           catalogue names that can be called; others are skipped. None means all, `()` none.
        """
        steps = self.steps
        if steps.done is not None:
            return steps.done
        try:
            policy = self.side.policy
            costs, problem = expected_costs(expected_cost_nusd)
            steps.expected_problem = problem or steps.expected_problem
            step = next_step(
                policy, steps, attempt, self.request, self.window, costs, available, prices=self.prices
            )
            if self.differing == AGREE and self.other is not None:
                try:
                    self._compare(step, attempt, costs, available)
                except Exception:  # Then it is unknown whether the policies differ on this task.
                    self.differing = None
            if step.action == "escalate":
                self._hold()
            return step
        except Exception as error:  # The caller's request must not fail because the bookkeeping did.
            return ended(steps, attempt, error)

    def _compare(
        self, step: Next, attempt: Attempt, costs: Mapping[str, int], available: Container[str] | None
    ) -> None:
        """Evaluate the other policy on the same attempts. As long as it agrees, both arms are alike."""
        comparison, other = self.assignment.comparison, self.other
        if comparison is None or other is None:
            return
        if not comparison.second_stage and other.alias == self.route.alias:
            return
        state = self._task_state
        if state.other_steps is None:
            state.other_steps = Steps(other, self._started)
        theirs = next_step(
            comparison.other(self.arm), state.other_steps, attempt, self.request, self.window, costs,
            available, prices=self.prices, took_ms=state.steps.took_ms,
        )  # fmt: skip
        if _what_to_do(step) == _what_to_do(theirs):
            return
        self.differing, rollout = SAME, self.assignment.rollout
        if comparison.remembers and rollout is not None and rollout.mode == "percentage":
            memory, unit = self._memory, self.lasting_unit
            if memory is not None and unit is not None:
                memory.differing.mark(rollout.id, unit)

    def _hold(self) -> None:
        escalate, conversation = self.side.policy.escalate, self.conversation
        if self._memory is None or conversation is None or escalate is None:
            return
        if escalate.latch == "conversation":
            self._memory.latch.hold(self.workload, conversation)

    @property
    def steps(self) -> Steps:
        """The task's attempts so far: `attempts`, `retries`, `fallbacks`, `escalations`, `cost_nusd`, `latency_ms` …"""
        return self._task_state.steps

    @property
    def _task_state(self) -> _TaskState:
        if self._state is None:
            self._state = _TaskState(Steps(self.route, self._started))
        return self._state

    @property
    def escalations(self) -> int:
        """How many times the task was escalated to a stronger model."""
        return self._state.steps.escalations if self._state is not None else 0

    @property
    def final_alias(self) -> str:
        """The policy's own name of the model that ended the task, or, before the end, of the last model asked."""
        if self._state is None:
            return self.route.alias
        steps = self._state.steps
        return steps.done.alias if steps.done is not None else steps.route.alias

    def __repr__(self) -> str:
        return f"<Decision {self.workload} v{self.version} {self.arm}: {self.rule} → {self.model}>"


def _what_to_do(step: Next) -> tuple[Any, ...]:
    return step.action, step.model, step.params, step.delay_ms, step.timeout_ms
