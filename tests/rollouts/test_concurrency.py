"""Eight people and three runners move the same rollouts at once: each stage is entered once, none is skipped.

`POINTSMAN_ADVANCES=10000` runs the long form.
"""

import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from typing import Any

import pytest
from django.db import connection, transaction

from controlplane.access.actions import withdraw_role
from controlplane.access.models import Membership
from controlplane.audit.models import Entry
from controlplane.core import clock
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import (
    ApprovalMissing,
    Conflict,
    Frozen,
    IllegalMove,
    RolloutActive,
    RolloutMoved,
)
from policies_app.actions import (
    edit_environment,
    edit_model,
    edit_workload,
    pin,
    serve_first,
    served_assignment,
)
from policies_app.models import Assignment, Model, Revision
from rollout_app import actions
from rollout_app.engine.plans import MAX_STAGES
from rollout_app.models import Rollout
from tests.support import builders, people
from tests.support.places import ANNA, BEN

WORKERS, RUNNERS = 8, 3
STEPS = MAX_STAGES - 1
SHARES = [100 * (at + 1) for at in range(STEPS)]
PLAN = [*({"mode": "percentage", "share_pcm": share} for share in SHARES), {"mode": "full"}]


def _rollouts(advances: int) -> Iterator[Rollout]:
    environment = builders.environment()
    for _ in range(-(-advances // STEPS)):
        workload = builders.workload()
        builders.served(environment, workload)
        rollout = actions.propose_rollout(
            environment, workload, builders.version(workload), plan=PLAN, reason="go", actor=ANNA
        )
        yield actions.start_rollout(rollout, actor=BEN, reason="go")


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(3_600)
def test_it_enters_each_stage_once_and_skips_none() -> None:
    rollouts = list(_rollouts(int(os.environ.get("POINTSMAN_ADVANCES", "190"))))
    left = {rollout.pk for rollout in rollouts}
    lost: list[str] = []
    errors: list[BaseException] = []

    def push(actor: Actor, seed: int) -> None:
        choose = random.Random(seed)
        try:
            while left and not errors:
                # The first few are the ones that everyone picks, so that they collide there.
                pk = choose.choice(sorted(left)[:4])
                try:
                    actions.advance_rollout(pk, actor=actor, reason="on")
                except RolloutMoved:
                    lost.append("moved")
                except IllegalMove:
                    left.discard(pk)
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    actors = [Actor("user", str(n), f"worker-{n}", str(n)) for n in range(10, 10 + WORKERS)]
    threads = [
        threading.Thread(target=push, args=(actor, seed))
        for seed, actor in enumerate(actors + [SYSTEM] * RUNNERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors, errors[0]
    assert lost, "there was no collision, so the test shows nothing"
    moves = 0
    for rollout in Rollout.objects.all():
        history = list(rollout.transitions.filter(event="advance").order_by("sequence"))
        assert [t.after_stage for t in history] == list(range(1, STEPS + 1))
        assert [t.before_stage for t in history] == list(range(STEPS))
        assert rollout.stage == STEPS
        sequences = list(rollout.transitions.values_list("sequence", flat=True))
        assert sequences == list(range(1, len(sequences) + 1))
        moves += len(history)
    assert Entry.objects.filter(action="rollout.advance", outcome="done").count() == moves
    assert Revision.objects.filter(cause="rollout.advance").count() == moves
    numbers = sorted(Revision.objects.values_list("number", flat=True))
    assert numbers == list(range(1, len(numbers) + 1))
    seqs = sorted(Entry.objects.values_list("seq", flat=True))
    assert seqs == list(range(1, len(seqs) + 1))


# --- checks that a concurrent commit makes untrue -----------------------------------------------------------


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[tuple[Callable[[], None], list[BaseException]]]:
    """Yield a function that runs `act` in another connection, and the errors of `act`.

    The function returns when `act` has ended or waits for a lock of the caller's; the block ends after `act`.
    """
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)
        finally:
            connection.close()

    thread = threading.Thread(target=run)

    def begin() -> None:
        if thread.ident is None:
            thread.start()
            thread.join(1.0)

    yield begin, errors
    thread.join()


@pytest.mark.django_db(transaction=True)
def test_it_does_not_take_back_a_rollout_that_completes_while_another_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check of the baseline saw the version before the completion, the next check saw no active rollout: the
    start served the old version to all traffic again."""
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)

    def proposed() -> Rollout:
        return actions.propose_rollout(
            environment,
            workload,
            builders.version(workload),
            plan=[{"mode": "full"}],
            reason="go",
            actor=ANNA,
        )

    first, second = actions.start_rollout(proposed(), actor=BEN, reason="go"), proposed()
    refusals = import_module("rollout_app.actions.refusals")  # the package exports a function of this name
    checked = refusals.refuse_disabled_models
    complete = partial(actions.complete_rollout, first.pk, actor=BEN, reason="all of it")
    with meanwhile(complete) as (begin, errors), monkeypatch.context() as patch:
        # `_models_enabled` lies between the two checks.
        patch.setattr(refusals, "refuse_disabled_models", lambda *given: (begin(), checked(*given))[1])
        with pytest.raises(Conflict):
            actions.start_rollout(second.pk, actor=BEN, reason="go")

    assert not errors
    served = Assignment.objects.get(environment=environment, workload=workload)
    assert (served.baseline, served.candidate) == (first.candidate, None)
    assert Rollout.objects.get(pk=second.pk).state == "scheduled"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("start", [actions.start_rollout, actions.break_glass_start])
def test_what_it_is_judged_by_cannot_change_while_it_starts(
    start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start had checked the criteria and the edit saw no rollout yet, so both passed."""
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    rollout = actions.propose_rollout(
        environment, workload, builders.version(workload), plan=[{"mode": "full"}], reason="go", actor=ANNA
    )
    if start is actions.break_glass_start:
        Rollout.objects.filter(pk=rollout.pk).update(state="awaiting_approval")
    stages = import_module("rollout_app.actions.stages")
    checked = stages.require
    edit = partial(edit_workload, workload, actor=SYSTEM, reason="lower", quality_bar="0.1")
    with meanwhile(edit) as (begin, errors), monkeypatch.context() as patch:
        patch.setattr(stages, "require", lambda *given: (checked(*given), begin()))
        start(rollout.pk, actor=BEN, reason="go")

    assert [type(error) for error in errors] == [RolloutActive]
    workload.refresh_from_db()
    assert str(workload.quality_bar) == "0.9000"


@contextmanager
def uncommitted(change: Callable[[], object]) -> Iterator[None]:
    """Make `change` in another connection, and commit it a moment later: the caller meets its locks first."""
    changed, errors = threading.Event(), []

    def run() -> None:
        try:
            with transaction.atomic():
                change()
                changed.set()
                time.sleep(0.5)
        except BaseException as error:
            errors.append(error)
        finally:
            changed.set()
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    changed.wait()
    try:
        yield
    finally:
        thread.join()
    assert not errors, errors[0]


def _freeze(rollout: Rollout) -> None:
    until = clock.now() + timedelta(days=1)
    edit_environment(rollout.environment, actor=SYSTEM, reason="incident", frozen_until=until)


def _ask_for_four_eyes(rollout: Rollout) -> None:
    edit_environment(rollout.environment, actor=SYSTEM, reason="from now on", four_eyes=True)


def _pin(rollout: Rollout) -> None:
    served = served_assignment(rollout.environment_id, rollout.workload_id)
    pin(served, "small", actor=SYSTEM, reason="an incident")


def _disable_a_model(rollout: Rollout) -> None:
    model = Model.objects.get(name=rollout.candidate.document["models"]["small"]["model"])
    edit_model(model, actor=SYSTEM, reason="it failed", enabled=False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("move", "change", "error"),
    [
        ("start", _freeze, Frozen),
        ("start", _ask_for_four_eyes, ApprovalMissing),
        ("start", _pin, Conflict),
        ("start", _disable_a_model, Conflict),
        ("break_glass", _pin, Conflict),
        ("advance", _freeze, Frozen),
        ("advance", _pin, Conflict),
        ("advance", _disable_a_model, Conflict),
        ("complete", _pin, Conflict),
    ],
)
def test_a_change_that_commits_while_a_move_waits_for_its_locks_still_forbids_it(
    move: str, change: Callable[[Rollout], None], error: type[Exception]
) -> None:
    """The freeze had been answered "nothing starts", and the start that had passed the checks before was committed
    after it."""
    environment, workload = builders.environment(), builders.workload()
    builders.served(environment, workload)
    plan = [{"mode": "percentage", "share_pcm": 100}, {"mode": "full"}]
    cheap = "tiny" if move == "complete" else "small"  # after completing, a pin to `small` would mean nothing
    models = builders.document(workload)["models"]
    candidate = builders.version(
        workload,
        models={cheap: models["small"], "large": models["large"]},
        default=cheap,
        fallback=["large", cheap],
    )
    rollout = actions.propose_rollout(environment, workload, candidate, plan=plan, reason="go", actor=ANNA)
    act = getattr(actions, f"{move}_start" if move == "break_glass" else f"{move}_rollout")
    if move in ("advance", "complete"):
        actions.start_rollout(rollout, actor=BEN, reason="go")
    if move == "complete":
        actions.advance_rollout(rollout, actor=BEN, reason="go")
    if move == "break_glass":
        Rollout.objects.filter(pk=rollout.pk).update(state="awaiting_approval")

    with uncommitted(partial(change, rollout)), pytest.raises(error):
        act(rollout.pk, actor=BEN, reason="go")

    assert Entry.objects.order_by("-seq")[0].outcome != "done", "the last entry is the refusal"


@pytest.mark.django_db(transaction=True)
def test_the_role_of_an_approver_that_is_withdrawn_while_a_start_waits_counts_no_longer() -> None:
    environment, workload = builders.environment(four_eyes=True), builders.workload()
    builders.served(environment, workload)
    builders.version(workload)
    rollout = people.proposed(workload, environment)
    for approver in ("eva", "carl"):  # two: the version was written by nobody in particular
        people.approve(rollout, approver)
    role = Membership.objects.get(user__username="eva", role="approver")

    with uncommitted(partial(withdraw_role, role, actor=SYSTEM)), pytest.raises(ApprovalMissing):
        actions.start_rollout(rollout.pk, actor=BEN, reason="go")

    assert Rollout.objects.get(pk=rollout.pk).state == "scheduled"


@pytest.mark.django_db(transaction=True)
def test_the_first_version_is_served_with_the_unit_that_an_edit_is_changing() -> None:
    """The edit saw no assignment yet, and the first version was built with the unit before it: routers kept that."""
    environment, workload = builders.environment(), builders.workload()
    version = builders.version(workload)
    assert version.workload.unit == "request"

    with uncommitted(partial(edit_workload, workload, actor=SYSTEM, unit="conversation")):
        served = serve_first(environment, version, actor=SYSTEM, reason="first")

    assert json.loads(served.fragment)["unit"] == "conversation"
