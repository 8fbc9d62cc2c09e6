"""POST /router/v1/samples: the inputs of some requests, for the playground. Only for routers that opt in.

They hold figures and names, never text, and are worth little: they wait in memory for a second, the newest `KEPT` of
each workload and environment are stored for `SAMPLES_KEPT`, and what cannot be stored is dropped. Nothing that counts
outcomes waits for them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from django.db import Error, connection, transaction
from django.db.models import Count

from controlplane.core import clock
from controlplane.core.errors import Unavailable
from controlplane.core.patience import SHORT_S, patience
from controlplane.web.replies import Reply, Request, json_reply
from pointsman.reporting.samples.figures import problem_of
from policies_app.models import Environment, Workload
from policies_app.snapshots.cache import SnapshotCache
from rollout_app.models import SampledInput
from rollout_app.outcomes.schemas import Problem, SampledRequest, read_samples, refusal
from rollout_app.outcomes.store import SAMPLES_KEPT

log = logging.getLogger(__name__)

KEPT = 200  # of a workload in an environment
WAITING = 2_000  # in memory; a flood replaces the oldest
WRITE_AFTER_S = 1.0


class Sample(NamedTuple):
    """One request's inputs, waiting to be stored."""

    environment: int
    workload: str
    sample: str
    request: Mapping[str, Any]


class SampledInputs:
    """Receives samples in the gateway's loop, and stores them in a thread of its own."""

    def __init__(self, snapshots: SnapshotCache) -> None:
        self._snapshots = snapshots
        self._waiting: deque[Sample] = deque(maxlen=WAITING)
        self._writing: asyncio.Task[None] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="samples")

    def receive(self, request: Request, body: bytes) -> Reply:
        """Check them and answer 202. Raises `MalformedBody`, or `InvalidInput` naming each bad one by its index."""
        inputs = read_samples(body)
        try:
            environment = self._snapshots[request.caller.environment]
        except KeyError:
            raise Unavailable(f"{request.caller.environment!r} is not being served at the moment.") from None
        problems = [
            Problem(index, *found, "inputs")
            for index, one in enumerate(inputs)
            if (found := self._problem(request, one, environment.fragments)) is not None
        ]
        if problems:
            raise refusal("inputs", problems)
        pk = environment.header.pk
        self._waiting.extend(Sample(pk, one.workload, one.sample_id, one.request) for one in inputs)
        if self._waiting and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write())
        return json_reply(202, {"accepted": len(inputs)})

    def stop(self) -> None:
        """Store what waits, and end the thread."""
        self._writer.submit(self._store, self._taken())
        self._writer.submit(lambda: connection.close())
        self._writer.shutdown()

    def _problem(
        self, request: Request, one: SampledRequest, served: Mapping[str, object]
    ) -> tuple[str, str] | None:
        if not request.caller.may_report(one.workload):
            return "workload", f"this key may not report on {one.workload!r}"
        if one.workload not in served:
            return "workload", f"no policy is served for {one.workload!r}"
        if not one.sample_id.isprintable():
            return "sample_id", "must consist of printable characters"
        found = problem_of(one.request)
        return None if found is None else (f"request.{found[0]}", found[1])

    async def _write(self) -> None:
        await asyncio.sleep(WRITE_AFTER_S)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._store, self._taken())

    def _taken(self) -> list[Sample]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def _store(self, samples: Sequence[Sample]) -> None:
        try:
            with patience(SHORT_S):
                store(samples)
        except Error as error:
            connection.close()
            log.warning("%d samples of inputs were not stored: %s", len(samples), str(error).strip())


def store(samples: Sequence[Sample]) -> None:
    """Store the newest samples of each workload, and delete the ones that they replace. Raises `Error`."""
    by_place: dict[tuple[int, str], list[Sample]] = {}
    for one in samples:
        by_place.setdefault((one.environment, one.workload), []).append(one)
    for (environment, workload), some in by_place.items():
        with transaction.atomic():
            pk = Workload.objects.filter(name=workload).values_list("pk", flat=True).first()
            if pk is None or not Environment.objects.filter(pk=environment).exists():
                continue  # deleted meanwhile
            SampledInput.objects.bulk_create(
                (
                    SampledInput(
                        environment_id=environment, workload_id=pk, sample=one.sample, request=one.request
                    )
                    for one in some[-KEPT:]
                ),
                ignore_conflicts=True,  # sent twice
            )
            stored = SampledInput.objects.filter(environment=environment, workload=pk)
            replaced = stored.order_by("-pk").values_list("pk", flat=True)[KEPT : KEPT + 1]
            if (newest := replaced.first()) is not None:
                stored.filter(pk__lte=newest).delete()


def latest(environment: Environment, workload: Workload) -> list[dict[str, Any]]:
    """Return the inputs of the newest samples, oldest first."""
    since = clock.now() - SAMPLES_KEPT
    found = SampledInput.objects.filter(environment=environment, workload=workload, at__gte=since)
    return list(reversed(found.order_by("-pk").values_list("request", flat=True)[:KEPT]))


def numbers(workload: Workload) -> dict[str, int]:
    """Return how many samples of the workload there are by environment; only environments with any."""
    since = clock.now() - SAMPLES_KEPT
    found = SampledInput.objects.filter(workload=workload, at__gte=since)
    return dict(found.values_list("environment__name").annotate(Count("pk")))
