"""Every action in any order, compared with a model: allowed actions work, others change nothing.

In CI 25 runs of up to 40 steps; `POINTSMAN_STATEFUL=500x100` runs the long form.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.errors import Conflict
from policies_app import actions as policies
from policies_app.models import Assignment, PolicyVersion, Revision
from rollout_app import actions
from rollout_app.engine.states import ACTIVE, State
from rollout_app.models import Rollout
from tests.support import builders, places
from tests.support.places import ANNA, BEN

PLANS: list[list[dict[str, Any]]] = [
    [{"mode": "shadow"}, {"mode": "percentage", "share_pcm": 5_000}, {"mode": "full"}],
    [{"mode": "percentage", "share_pcm": 50_000}, {"mode": "full"}],
]
LEAST_ONE = st.integers(min_value=0, max_value=7)


@dataclass
class Expected:
    """The expected state of one rollout."""

    state: State
    baseline: int
    candidate: int
    plan: int | None  # None: `immediate`, for a revert
    stage: int = 0
    moves: int = 1
    aborted: bool = False
    undone: "Expected | None" = None  # the rollout that reverted this one
    shares: list[tuple[State, int]] = field(default_factory=list)

    @property
    def stages(self) -> int:
        return 1 if self.plan is None else len(PLANS[self.plan])


class Rollouts(RuleBasedStateMachine):
    @initialize()
    def serve(self) -> None:
        places.people()
        self.environment = builders.environment(four_eyes=True)
        self.workload = builders.workload()
        first = builders.served(self.environment, self.workload).baseline
        self.versions = [first, *(builders.version(self.workload, actor=ANNA) for _ in range(2))]
        self.served = first.pk
        self.frozen = self.pinned = False
        self.rollouts: dict[UUID, Expected] = {}
        self.entries = Entry.objects.filter(outcome="done").count()
        self.revisions = 1

    def do(
        self, allowed: bool, work: Callable[[], Rollout], entries: int = 1, revisions: int = 0
    ) -> Rollout | None:
        if not allowed:
            with pytest.raises(Conflict):
                work()
            return None
        rollout = work()
        self.entries += entries
        self.revisions += revisions
        return rollout

    def pick(self, at: int) -> tuple[UUID, Expected] | None:
        return list(self.rollouts.items())[at % len(self.rollouts)] if self.rollouts else None

    def active(self) -> bool:
        return any(expected.state in ACTIVE for expected in self.rollouts.values())

    # --- before -------------------------------------------------------------------------------------

    @rule(version=st.integers(0, 2), plan=st.integers(0, 1))
    def propose(self, version: int, plan: int) -> None:
        if len(self.rollouts) >= 8:
            return
        candidate = self.versions[version]
        rollout = self.do(
            candidate.pk != self.served,
            lambda: actions.propose_rollout(
                self.environment, self.workload, candidate, plan=PLANS[plan], reason="r", actor=ANNA
            ),
        )
        if rollout:
            self.rollouts[rollout.pk] = Expected(State.AWAITING_APPROVAL, self.served, candidate.pk, plan)

    def step(
        self,
        at: int,
        action: Callable[..., Rollout],
        allowed: Callable[[Expected], bool],
        after: Callable[[Expected], State],
        revisions: int = 0,
        **options: Any,
    ) -> Expected | None:
        """Run one action on one rollout; return its model if it was allowed."""
        if (picked := self.pick(at)) is None:
            return None
        pk, expected = picked
        done = self.do(
            allowed(expected),
            lambda: action(pk, **{"actor": BEN, "reason": "r"} | options),
            revisions=revisions,
        )
        if done is None:
            return None
        expected.state = after(expected)
        expected.moves += 1
        return expected

    @rule(at=LEAST_ONE, plan=st.integers(0, 1))
    def amend(self, at: int, plan: int) -> None:
        may = {State.AWAITING_APPROVAL, State.SCHEDULED}
        expected = self.step(
            at,
            actions.amend_rollout,
            lambda e: e.state in may and e.candidate != self.served,
            lambda e: State.AWAITING_APPROVAL,
            actor=ANNA,
            plan=PLANS[plan],
        )
        if expected:
            expected.plan, expected.baseline = plan, self.served

    @rule(at=LEAST_ONE)
    def approve(self, at: int) -> None:
        self.step(
            at,
            places.approve,
            lambda e: e.state is State.AWAITING_APPROVAL,
            lambda e: State.SCHEDULED,
        )

    @rule(at=LEAST_ONE)
    def reject(self, at: int) -> None:
        self.step(
            at, actions.reject_rollout, lambda e: e.state is State.AWAITING_APPROVAL, lambda e: State.REJECTED
        )

    @rule(at=LEAST_ONE)
    def cancel(self, at: int) -> None:
        may = {State.AWAITING_APPROVAL, State.SCHEDULED}
        self.step(at, actions.cancel_rollout, lambda e: e.state in may, lambda e: State.CANCELLED)

    # --- forward --------------------------------------------------------------------------------------

    @rule(at=LEAST_ONE)
    def start(self, at: int) -> None:
        self.step(
            at,
            actions.start_rollout,
            lambda e: e.state is State.SCHEDULED and not self.frozen and self.may_enter(e),
            lambda e: State.RUNNING,
            revisions=1,
        )

    @rule(at=LEAST_ONE)
    def break_glass(self, at: int) -> None:
        self.step(
            at,
            actions.break_glass_start,
            lambda e: e.state is State.AWAITING_APPROVAL and self.may_enter(e),
            lambda e: State.RUNNING,
            revisions=1,
        )

    def may_enter(self, expected: Expected) -> bool:
        return not self.pinned and expected.baseline == self.served and not self.active()

    @rule(at=LEAST_ONE)
    def advance(self, at: int) -> None:
        expected = self.step(
            at,
            actions.advance_rollout,
            lambda e: (
                e.state is State.RUNNING and e.stage + 1 < e.stages and not self.frozen and not self.pinned
            ),
            lambda e: State.RUNNING,
            revisions=1,
        )
        if expected:
            expected.stage += 1

    @rule(at=LEAST_ONE)
    def complete(self, at: int) -> None:
        expected = self.step(
            at,
            actions.complete_rollout,
            lambda e: e.state is State.RUNNING and e.stage + 1 == e.stages,
            lambda e: State.COMPLETED,
            revisions=1,
        )
        if expected:
            self.served = expected.candidate

    @rule(at=LEAST_ONE)
    def pause(self, at: int) -> None:
        self.step(at, actions.pause_rollout, lambda e: e.state is State.RUNNING, lambda e: State.PAUSED)

    @rule(at=LEAST_ONE)
    def resume(self, at: int) -> None:
        self.step(at, actions.resume_rollout, lambda e: e.state is State.PAUSED, lambda e: State.RUNNING)

    # --- back -----------------------------------------------------------------------------------------

    @rule(at=LEAST_ONE, abort=st.booleans())
    def go_back(self, at: int, abort: bool) -> None:
        expected = self.step(
            at,
            actions.abort_rollout if abort else actions.roll_back_rollout,
            lambda e: e.state in (State.RUNNING, State.PAUSED),
            lambda e: State.ROLLING_BACK,
            revisions=1,
        )
        if expected:
            expected.aborted = abort

    @rule(at=LEAST_ONE)
    def confirm(self, at: int) -> None:
        self.step(
            at,
            actions.confirm_rolled_back,
            lambda e: e.state is State.ROLLING_BACK,
            lambda e: State.ABORTED if e.aborted else State.ROLLED_BACK,
            readback={"confirmed": 1, "of": 1, "stragglers": []},
        )

    @rule(at=LEAST_ONE)
    def revert(self, at: int) -> None:
        if (picked := self.pick(at)) is None or len(self.rollouts) >= 8:
            return
        pk, expected = picked
        undone = expected.undone is not None and expected.undone.state not in (
            State.ROLLED_BACK,
            State.ABORTED,
        )
        allowed = (
            expected.state is State.COMPLETED
            and expected.candidate == self.served
            and not undone
            and not self.active()
        )
        back = self.do(allowed, lambda: actions.revert_rollout(pk, actor=BEN, reason="r"), revisions=1)
        if back:
            self.rollouts[back.pk] = expected.undone = Expected(
                State.RUNNING, expected.candidate, expected.baseline, None
            )

    # --- around ---------------------------------------------------------------------------------------

    @rule()
    def freeze_or_thaw(self) -> None:
        self.frozen = not self.frozen
        until = clock.now() + timedelta(days=1) if self.frozen else None
        policies.edit_environment(self.environment, actor=BEN, frozen_until=until, reason="as planned")
        self.entries += 1

    @rule()
    def pin_or_unpin(self) -> None:
        served = Assignment.objects.get(environment=self.environment, workload=self.workload)
        if self.pinned:
            policies.unpin(served, actor=BEN, reason="r")
        else:
            policies.pin(served, "large", actor=BEN, reason="r")
        self.pinned = not self.pinned
        self.entries += 1
        self.revisions += 1

    @rule(at=LEAST_ONE)
    def decide_late(self, at: int) -> None:
        """Someone else moved it between reading and acting: a conflict that changes nothing."""
        if (picked := self.pick(at)) is None or picked[1].state is not State.RUNNING:
            return
        stale = Rollout.objects.get(pk=picked[0])
        self.pause(at)
        self.do(False, lambda: actions.pause_rollout(stale, actor=BEN, reason="late"))

    @invariant()
    def the_database_agrees(self) -> None:
        if not hasattr(self, "rollouts"):
            return
        rows = {row.pk: row for row in Rollout.objects.filter(environment=self.environment)}
        assert rows.keys() == self.rollouts.keys()
        active = None
        for pk, expected in self.rollouts.items():
            row = rows[pk]
            assert (row.state, row.stage, row.baseline_id) == (
                expected.state,
                expected.stage,
                expected.baseline,
            )
            assert row.version == expected.moves + 1
            sequences = list(row.transitions.values_list("sequence", flat=True))
            assert sequences == list(range(1, expected.moves + 1))
            if expected.state in (State.RUNNING, State.PAUSED):
                active = row
        self.the_assignment_agrees(active)
        assert Entry.objects.filter(outcome="done").count() == self.entries
        numbers = Revision.objects.filter(environment=self.environment).values_list("number", flat=True)
        assert sorted(numbers) == list(range(1, self.revisions + 1))

    def the_assignment_agrees(self, active: Rollout | None) -> None:
        served = Assignment.objects.get(environment=self.environment, workload=self.workload)
        assert served.baseline_id == self.served
        assert served.rollout == (active and active.pk)
        if active:
            stage = active.stages[active.stage]
            assert (served.stage, served.mode, served.share_pcm) == (
                active.stage,
                stage["mode"],
                stage["share_pcm"],
            )


@pytest.mark.django_db
@pytest.mark.timeout(7_200)
def test_it_agrees_with_the_model() -> None:
    runs, steps = map(int, os.environ.get("POINTSMAN_STATEFUL", "25x40").split("x"))
    run_state_machine_as_test(
        Rollouts,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        ),
    )
    assert PolicyVersion.objects.exists()
