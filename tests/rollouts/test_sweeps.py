"""Sweeps of several processes at once: every closed minute is counted once, and nobody waits for long."""

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connection

from controlplane.core import clock
from rollout_app.engine.states import State
from rollout_app.evaluation import reconcile
from rollout_app.models import ArmTotals, Rollout, Transition, VerdictRecord
from tests.support import places
from tests.support.traffic import Traffic

ROLLOUTS, SWEEPERS, ROUNDS = 6, 4, 5
PLAN = [{"mode": "percentage", "share_pcm": 20_000, "min_tasks": 100_000}, {"mode": "full"}]


@pytest.mark.django_db(transaction=True)
def test_simultaneous_sweeps_count_each_minute_once(caplog: pytest.LogCaptureFixture) -> None:
    traffics = []
    for at in range(ROLLOUTS):
        rollout = places.started(plan=PLAN)
        places.router(rollout)
        traffics.append(Traffic(rollout, seed=at, start=clock.now() - timedelta(hours=5)))
    bad = traffics[-1]
    words: Counter[str] = Counter()

    def sweep(start: threading.Barrier) -> None:
        try:
            start.wait()
            words.update(reconcile.sweep())
        finally:
            connection.close()

    for turn in range(ROUNDS):
        for traffic in traffics:
            if traffic is not bad:
                traffic.minutes(2)
            elif turn < 2:
                traffic.minutes(2, candidate=0.3)
        Rollout.objects.update(wake_at=None)
        barrier = threading.Barrier(SWEEPERS)
        threads = [threading.Thread(target=sweep, args=(barrier,)) for _ in range(SWEEPERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert "error" not in words, caplog.text
    for traffic in traffics[:-1]:
        row = Rollout.objects.get(pk=traffic.rollout.pk)
        rows = ArmTotals.objects.filter(rollout=str(row.pk), arm="candidate").order_by("minute")
        assert sum(tally["candidate_tasks"] for tally in row.evidence["tallies"].values()) == sum(
            minute.tasks for minute in list(rows)[:-1]
        )
        looks = Counter(VerdictRecord.objects.filter(rollout=row).values_list("evaluation", flat=True))
        assert set(looks) <= set(range(1, row.evaluations + 1))
        # Each stored evaluation is complete and stored once.
        assert set(looks.values()) == {len(row.guardrails)}
    assert words["roll_back"] == 1
    assert Rollout.objects.get(pk=bad.rollout.pk).state == State.ROLLING_BACK
    assert Transition.objects.filter(rollout=bad.rollout.pk, event="roll_back").count() == 1
