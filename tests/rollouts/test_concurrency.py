"""Eight people and three runners move the same rollouts at once: each stage is entered once, none is skipped.

`POINTSMAN_ADVANCES=10000` runs the long form.
"""

import os
import random
import threading
from collections.abc import Iterator

import pytest
from django.db import connection

from controlplane.audit.models import Entry
from controlplane.core.actors import SYSTEM, Actor
from controlplane.core.errors import IllegalMove, RolloutMoved
from policies_app.models import Revision
from rollout_app import actions
from rollout_app.engine.plans import MAX_STAGES
from rollout_app.models import Rollout
from tests.support import builders
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
