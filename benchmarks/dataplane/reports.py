"""Reports of a fleet of routers: batches of the client's own buckets, over any number of routes."""

import json
import math
import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pointsman.reporting.buckets import Bucket, BucketKey, Outcome

TASKS = 20  # per bucket; so its histograms have 10 to 20 filled buckets, and 15 of the 32 groups have tasks
WORKLOADS = 100
_VARIANTS = 200  # different figures; creating them takes longer than counting them


class Fleet:
    """Routers that report on `routes` different keys of the current minute, ten in each batch."""

    def __init__(self, routes: int, buckets: int = 10) -> None:
        self._buckets = buckets
        self._random = random.Random(1)
        self._figures = [self._bucket() for _ in range(_VARIANTS)]
        self._places = [_place(number) for number in range(routes)]

    def bodies(self, count: int, routers: int) -> Iterator[bytes]:
        minute = time.strftime('"minute":"%Y-%m-%dT%H:%M:00Z",', time.gmtime())
        for number in range(count):
            places = self._random.sample(self._places, self._buckets)
            buckets = ",".join(
                f"{{{minute}{place}{figures}}}"
                for place, figures in zip(
                    places, self._random.choices(self._figures, k=self._buckets), strict=True
                )
            )
            router = f"router-{number % routers}"
            yield f'{{"batch_id":"{uuid.uuid4()}","router":"{router}","buckets":[{buckets}]}}'.encode()

    def _bucket(self) -> str:
        """Return the figures of a bucket, without its key."""
        bucket = Bucket()
        for _ in range(TASKS):
            bucket.add(self._outcome(), cap=None)
        document = bucket.as_dict(BucketKey(0, "", None, None, "", 1, "", "", ""))
        for name in _PLACE:
            del document[name]
        return json.dumps(document, separators=(",", ":"))[1:-1]

    def _outcome(self) -> Outcome:
        draw = self._random.random
        escalated, failed = draw() < 0.1, draw() < 0.08
        return Outcome(
            success=not failed,
            quality=draw() ** 0.2,
            confidence=draw() ** 0.5,
            cost_nusd=round(self._random.lognormvariate(math.log(400_000), 0.5)),
            latency_ms=self._random.lognormvariate(math.log(900), 0.5),
            error="timeout" if failed and draw() < 0.2 else None,
            escalations=int(escalated),
            retries=int(draw() < 0.02),
            attempts=1 + escalated,
            models=("small", "large") if escalated else ("small",),
        )


_PLACE = ("minute", "workload", "rollout", "stage", "arm", "version", "endpoint", "rule", "model")


def _place(number: int) -> str:
    """Return the key of a route. Routes are spread over workloads, then over endpoints with four rules each."""
    workload, route = number % WORKLOADS, number // WORKLOADS
    place: dict[str, Any] = {
        "workload": f"w{workload}", "rollout": None, "stage": None, "arm": "baseline", "version": 1,
        "endpoint": f"/service/{route // 4}", "rule": f"rule-{route % 4}",
        "model": "large" if route % 4 == 3 else "small",
    }  # fmt: skip
    return json.dumps(place, separators=(",", ":"))[1:-1] + ","
