"""One running story: routers that serve its recorded tasks, and its rollout."""

import random
import threading
import time
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Max

from controlplane.core import clock
from pointsman import Pace, Router
from rollout_app import actions
from rollout_app.demo import instance
from rollout_app.demo.instance import Served
from rollout_app.demo.stories import Story
from rollout_app.engine.calibration import MIN_OUTCOMES
from rollout_app.engine.states import ENDED, State
from rollout_app.models import ArmTotals, Rollout
from rollout_app.rehearsal.replay import Replay, Stamps

ROUTERS = 2  # two per story, so that a rollback has routers to read back from
# Stamps begin here and advance a minute per second: half a day is enough for twelve real minutes.
BEGIN_BEFORE = timedelta(hours=12)


class Traffic(threading.Thread):
    """Replays a story's tasks until `stop`. Proposes its rollout when enough of the baseline is known."""

    def __init__(self, story: Story, served: Served, url: str, key: str, per_second: int) -> None:
        super().__init__(name=f"story {story.letter}", daemon=True)
        self.story, self.served = story, served
        self.error: Exception | None = None
        self.began = time.monotonic()
        self._url, self._key, self._per_second = url, key, per_second
        self._over = threading.Event()

    def stop(self) -> None:
        self._over.set()

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:  # the main thread shows it and ends the demo
            self.error = error
        finally:
            connection.close()

    def _run(self) -> None:
        tasks = self.story.tasks()
        stamps = Stamps(_begin(self.served))
        # Picks the next recorded task, with replacement; not a secret.
        draw = random.Random(self.story.letter).choice  # noqa: S311
        routers = [self._router(number, stamps) for number in range(1, ROUTERS + 1)]
        try:
            for router in routers:
                if not router.wait_ready(30):
                    raise RuntimeError(f"{router.instance} got no snapshot: {router.status()['last_error']}")
            replay = Replay(
                routers, self.story.workload, lambda: draw(tasks), stamps, per_minute=self._per_second
            )
            while not self._over.is_set():
                replay.minute(self._over.is_set)
                self._propose_when_known()
        finally:
            for router in routers:
                router.close()

    def _router(self, number: int, stamps: Stamps) -> Router:
        # The same names in every run, so that the fleet page recognises the routers and misses none.
        return Router(
            self._url,
            self._key,
            environment=self.story.environment,
            instance=f"{self.story.workload}-gateway-{number}",
            clock=stamps,
            pace=Pace(first_poll_within=0, flush_every=0.2),
        )

    def _propose_when_known(self) -> None:
        """Propose and start once. With four eyes, the reviewer approves the start, which is only a shadow stage."""
        if self.rollout() is not None or _graded(self.served) < MIN_OUTCOMES:
            return
        owner = instance.person(instance.OWNER)
        rollout = actions.propose_rollout(
            self.served.environment,
            self.served.workload,
            self.served.candidate,
            plan=self.story.plan,
            reason=self.story.why,
            actor=owner,
        )
        if rollout.state == State.AWAITING_APPROVAL:
            reviewer = instance.person(instance.REVIEWER)
            rollout = actions.approve_rollout(
                rollout,
                actor=reviewer,
                reason="A shadow stage enforces nothing, and it shows what the candidate would do.",
                expected_binding=actions.binding(rollout),
            )
        actions.start_rollout(rollout, actor=owner, reason="Enough is known about the baseline.")

    def rollout(self) -> Rollout | None:
        """Return the story's rollout, the newest of its candidate."""
        return (
            Rollout.objects.filter(environment=self.served.environment, candidate=self.served.candidate)
            .order_by("-created_at")
            .first()
        )


def waits_for_a_person(rollout: Rollout) -> bool:
    return rollout.state == State.RUNNING and rollout.hold_code == "approval"


def has_ended(rollout: Rollout | None) -> bool:
    return rollout is not None and rollout.state in ENDED


def _begin(served: Served) -> float:
    """Return the first stamp in Unix seconds: half a day ago, or where an earlier run ended."""
    start = clock.now() - BEGIN_BEFORE
    last = _totals(served).aggregate(last=Max("minute"))["last"]
    if last is not None:
        start = max(start, last + timedelta(minutes=1))
    return start.replace(second=0, microsecond=0).timestamp()


def _graded(served: Served) -> int:
    rows = _totals(served).values_list("successes", "failures")
    return sum(successes + failures for successes, failures in rows)


def _totals(served: Served) -> Any:
    return ArmTotals.objects.filter(environment=served.environment, workload=served.workload)
