"""Send the inputs of a few requests a minute for the playground: figures and names, never text. Off by default."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

from pointsman.decision import Decision
from pointsman.errors import ConfigurationError
from pointsman.given import names_in
from pointsman.logs import log
from pointsman.reporting.limits import COMMITTED
from pointsman.reporting.metrics import Counter
from pointsman.reporting.samples.figures import figures_of

__all__ = ["InputSamples"]

MOST_PER_MINUTE = 20  # per workload
_WORKLOADS = 200  # per minute
_AT_ONCE = 50  # inputs per message; the control plane accepts 100
_EVERY_S = 60.0
_REST_S = 3_600.0  # pause after a control plane that does not know the endpoint


class InputSamples:
    """Sends the inputs of some finished tasks: `Router(sample_inputs=InputSamples(5, attributes=["product"]))`.

    per_minute  inputs of each workload that this process sends per minute, 1 to 20, drawn at random
    attributes  request attributes whose strings may be sent because they come from a short list (a product, a
                region); numbers and booleans are always sent, other strings never

    Each message is sent once and never again: a sample is not worth a retry. Raises ConfigurationError.
    """

    def __init__(self, per_minute: int, *, attributes: Iterable[str] = ()) -> None:
        if not 1 <= per_minute <= MOST_PER_MINUTE:
            raise ConfigurationError(
                f"sample_inputs must be 1 to {MOST_PER_MINUTE} per minute, not {per_minute!r}"
            )
        self.per_minute, self.attributes = per_minute, frozenset(names_in("attributes", attributes))
        self.restart()

    @classmethod
    def of(cls, given: int | InputSamples) -> InputSamples | None:
        """Return the samples for an option of a router; None for 0."""
        return given if isinstance(given, InputSamples) else cls(given) if given else None

    def restart(self) -> None:
        """Start empty, also in a forked child."""
        self._lock = threading.Lock()
        self._kept: dict[str, list[dict[str, Any]]] = {}
        self._seen: dict[str, int] = {}
        self._due = time.monotonic() + _EVERY_S
        self._resting_until = float("-inf")
        self._dropped = Counter()
        self.sent = 0

    @property
    def dropped(self) -> int:
        """Inputs that were drawn and not accepted."""
        return self._dropped.value

    def offer(self, decision: Decision) -> None:
        """Keep the task's inputs by reservoir sampling: every task of the minute is equally likely to be sent."""
        workload = decision.workload
        with self._lock:
            seen = self._seen.get(workload, 0) + 1
            if seen == 1 and len(self._seen) >= _WORKLOADS:
                return
            self._seen[workload] = seen
            kept = self._kept.setdefault(workload, [])
            at = len(kept) if seen <= self.per_minute else random.randrange(seen)  # noqa: S311 — a sample, no secret
            if at >= self.per_minute:
                return
        request, _ = figures_of(decision.request, decision.endpoint, self.attributes)
        sampled = {"workload": workload, "sample_id": uuid4().hex, "request": request}
        with self._lock:
            kept[at : at + 1] = [sampled]

    def messages(self, now: float) -> Iterator[tuple[bytes, int]]:
        """Yield the bodies to send and their numbers of inputs, at most once a minute. `now`: `time.monotonic`."""
        if now < self._due:
            return
        self._due = now + _EVERY_S
        with self._lock:
            kept = [one for some in self._kept.values() for one in some]
            self._kept, self._seen = {}, {}
        for start in range(0, len(kept), _AT_ONCE) if now >= self._resting_until else ():
            some = kept[start : start + _AT_ONCE]
            yield json.dumps({"inputs": some}, allow_nan=False).encode(), len(some)

    def answered(self, status: int, said: str, number: int, now: float) -> None:
        """Note the answer to a message; 0: there was none."""
        if status == COMMITTED:
            self.sent += number
            return
        for _ in range(number):
            self._dropped.hit()
        if status in (404, 405):
            self._resting_until = now + _REST_S
            log.warning(
                "the control plane does not accept samples of inputs (%s); trying again in an hour", said
            )
