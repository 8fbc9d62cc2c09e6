"""Sends what waits: outcome batches first, then feedback, each until the control plane acknowledges it."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic

from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.sync.backoff import Backoff
from pointsman.sync.loop import guarded
from pointsman.sync.transport import Transport, Unreachable

__all__ = ["Sender"]

log = logging.getLogger("pointsman")

# While nothing gets through, minutes stay open this long: an outage does not cut them into small pieces.
_SEAL_IN_OUTAGE_S = 60.0
_ADOPT_EVERY_S = 60.0


class Sender:
    """Flushes outcomes and feedback. `rounds` runs in the background thread's loop until it is cancelled.

    flush_every   seconds between two flushes, spread by a fifth to either side
    """

    def __init__(self, outcomes: OutcomeBuffer, feedback: FeedbackQueue, flush_every: float) -> None:
        self._outcomes, self._feedback, self._flush_every = outcomes, feedback, flush_every
        self._backoff = Backoff()
        self._sealed_at = self._adopted_at = float("-inf")

    async def rounds(self, transport: Transport) -> None:
        """Flush for ever."""
        while True:
            await asyncio.sleep(self._backoff.spread(self._flush_every))
            wait = await guarded(lambda: self._flush(transport), lambda _: self._backoff.failure())
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        """Wait before the next try. Meanwhile a spool takes what is recorded: a kill loses one flush interval."""
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            await asyncio.sleep(min(left, self._flush_every))
            if self._outcomes.spool is not None:
                self._seal()

    async def last_flush(self, transport: Transport) -> None:
        """Seal and send what waits, once."""
        self._seal()
        await self._send(transport)

    async def _flush(self, transport: Transport) -> float:
        now = monotonic()
        if (
            self._outcomes.spool is not None
            or not self._backoff.failures
            or now - self._sealed_at >= _SEAL_IN_OUTAGE_S
        ):
            self._seal()
            self._sealed_at = now
        if now - self._adopted_at >= _ADOPT_EVERY_S:
            self._outcomes.adopt()
            self._feedback.adopt()
            self._adopted_at = now
        return await self._send(transport)

    def _seal(self) -> None:
        self._outcomes.seal()
        self._feedback.seal()

    async def _send(self, transport: Transport) -> float:
        """Send what waits; the seconds to wait when something did not get through, else 0."""
        try:
            while batch := self._outcomes.oldest():
                answer = await transport.post("outcomes", batch.body, batch.router)
                if 200 <= answer.status < 300:
                    self._outcomes.accept(batch)
                elif answer.status == 413:
                    self._outcomes.split(batch)
                elif answer.status in (400, 422):
                    log.warning("outcome batch %s refused: %s", batch.id, answer.describe())
                    self._outcomes.refuse(batch, answer.bad_entries)
                else:
                    return self._backoff.failure(answer.retry_after_s)
            return await self._send_feedback(transport)
        except Unreachable:
            return self._backoff.failure()

    async def _send_feedback(self, transport: Transport) -> float:
        while batch := self._feedback.oldest():
            answer = await transport.post("feedback", batch.body)
            if 200 <= answer.status < 300:
                self._feedback.accept(batch)
            elif answer.status in (400, 413, 422):
                self._feedback.refuse(batch)
            else:
                return self._backoff.failure(answer.retry_after_s)
        self._backoff.success()
        return 0.0
