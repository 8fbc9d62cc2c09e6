"""Send waiting outcome batches, then feedback, until the control plane acknowledges them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from time import monotonic, time

from pointsman.logs import log
from pointsman.reporting.batch import Batch, FeedbackBatch
from pointsman.reporting.feedback import FeedbackQueue
from pointsman.reporting.limits import COMMITTED
from pointsman.reporting.outcomes import OutcomeBuffer
from pointsman.reporting.samples.inputs import InputSamples
from pointsman.sync.backoff import Backoff
from pointsman.sync.loop import guarded, until
from pointsman.sync.transport import Answer, Transport, Unreachable

__all__ = ["Sender"]

# During an outage minutes stay open for this long, so that they are not divided into many small batches.
_SEAL_IN_OUTAGE_S = 60.0
_ADOPT_EVERY_S = 60.0
_AHEAD_S = 300.0  # minutes further ahead of its clock than this are not accepted by a control plane
_SET_ASIDE_S = (30.0, 3_600.0)  # at least and at most, before a batch from the future is tried again


class Sender:
    """Flushes outcomes and feedback. `rounds` runs in the background thread's loop until it is cancelled.

    flush_every    seconds between two flushes, ± 20 %
    last_error     why outcomes or feedback wait; None if nothing failed
    clock_ahead_s  how far this machine's clock is ahead, if the control plane refuses outcomes for that reason
    """

    def __init__(
        self,
        outcomes: OutcomeBuffer,
        feedback: FeedbackQueue,
        flush_every: float,
        samples: InputSamples | None = None,
    ) -> None:
        self._outcomes, self._feedback, self._flush_every = outcomes, feedback, flush_every
        self._samples = samples
        self._backoff = Backoff()
        self.last_error: str | None = None
        self.clock_ahead_s: float | None = None
        self._sealed_at = self._adopted_at = float("-inf")
        self._wake = asyncio.Event()
        self.got_through: Callable[[], None] = lambda: None  # called when it sends again after failures

    def retry(self) -> None:
        """Send now because another request got through, unless the control plane set the wait. Call it in the loop."""
        if self._backoff.failures and not self._backoff.told:
            self._wake.set()

    async def rounds(self, transport: Transport) -> None:
        """Flush until cancelled."""
        while True:
            await asyncio.sleep(self._backoff.spread(self._flush_every))
            wait = await guarded(lambda: self._flush(transport), self._failed)
            if not wait:
                await guarded(lambda: self._send_samples(transport), lambda _: None)
            await self._wait(wait)

    async def _wait(self, seconds: float) -> None:
        """Wait before the next attempt. Meanwhile new outcomes go to the spool, so a kill loses one flush interval."""
        self._wake.clear()
        ends = monotonic() + seconds
        while (left := ends - monotonic()) > 0 and not self._wake.is_set():
            await until(self._wake, min(left, self._flush_every))
            if self._outcomes.spool is not None:
                self._seal()

    async def last_flush(self, transport: Transport) -> None:
        """Seal and send everything that waits, once."""
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
        """Send everything that waits. Return the seconds to wait after a failure, or 0."""
        try:
            while batch := self._outcomes.oldest():
                answer = await transport.post("outcomes", batch.body, batch.router)
                if answer.status == COMMITTED:
                    self._outcomes.accept(batch)
                elif answer.status == 413:
                    self._outcomes.split(batch)
                elif answer.refuses_body:
                    log.warning("outcome batch %s refused: %s", batch.id, answer.describe_refusal())
                    self._outcomes.refuse(batch, answer.bad_entries)
                elif not self._set_aside(batch, answer):
                    return self._kept("outcomes", answer)
            return await self._send_feedback(transport)
        except Unreachable as error:
            return self._failed(str(error))

    def _set_aside(self, batch: Batch, answer: Answer) -> bool:
        """Let the others pass a batch with minutes ahead of this clock, which was corrected since it was recorded.

        Otherwise a machine that once started in next year would report nothing until then.
        """
        if _clock_ahead(answer) is None or (wait_s := batch.newest - _AHEAD_S - time()) <= 0:
            return False
        least, most = _SET_ASIDE_S
        if self._outcomes.postpone(batch, min(max(wait_s, least), most)):
            log.warning(
                "outcome batch %s waits: it was recorded while this machine's clock was ahead", batch.id
            )
        return True

    async def _send_feedback(self, transport: Transport) -> float:
        began = monotonic()  # what becomes due meanwhile waits for the next round, so that each one ends
        while batch := self._feedback.oldest(began):
            answer = await transport.post("feedback", batch.body)
            if answer.status == COMMITTED:
                self._feedback.accept(batch)
            elif answer.status == 413 or answer.refuses_body:
                if dropped := self._feedback.refuse(batch):
                    log.warning("%d feedback refused: %s", dropped, answer.describe_refusal())
            elif not self._set_feedback_aside(batch, answer):
                return self._kept("feedback", answer)
        failed = self._backoff.failures
        self._backoff.success()
        self.last_error = self.clock_ahead_s = None
        if failed:
            self.got_through()
        return 0.0

    def _set_feedback_aside(self, batch: FeedbackBatch, answer: Answer) -> bool:
        """Let the others pass the feedback on tasks ahead of the control plane's clock, which names it.

        They may be another machine's tasks, so this clock may be right. Without names, everything waits.
        """
        if _clock_ahead(answer) is None:
            return False
        ahead = {number for member, number in answer.bad_entries if member == "feedback"}
        least, most = _SET_ASIDE_S
        wait_s = min(max(answer.retry_after_s or 0.0, least), most)
        return self._feedback.set_aside(batch, ahead, wait_s, most)

    async def _send_samples(self, transport: Transport) -> None:
        """Send each message once, after everything else got through. Whatever happens to them, nothing waits for it."""
        samples = self._samples
        if samples is None:
            return
        for body, number in samples.messages(monotonic()):
            try:
                answer = await transport.post("samples", body)
                samples.answered(answer.status, answer.describe(), number, monotonic())
            except Unreachable as error:
                samples.answered(0, str(error), number, monotonic())

    def _kept(self, what: str, answer: Answer) -> float:
        """Note that a message was not accepted and return the seconds to wait before trying again."""
        self.clock_ahead_s = _clock_ahead(answer)
        if self.clock_ahead_s is None:
            why = f"{what} not accepted, {answer.describe()}"
            if 200 <= answer.status < 300:
                why += f" instead of {COMMITTED}: something else than a control plane answered"
            return self._failed(why, answer.retry_after_s)
        # Without the seconds, which change with each attempt: a message is logged only if it differs from the last one.
        return self._failed(
            f"{what} wait, {answer.describe()}: this machine's clock is ahead of the control plane's. "
            "Correct it; nothing is lost meanwhile",
            answer.retry_after_s,
        )

    def _failed(self, why: str, retry_after_s: float | None = None) -> float:
        before, self.last_error = self.last_error, why
        if why != before:
            log.warning("outcomes and feedback are kept and will be sent later: %s", why)
        return self._backoff.failure(retry_after_s)


def _clock_ahead(answer: Answer) -> float | None:
    """Return how many seconds this clock is ahead of the control plane's; None if the refusal had another reason."""
    problem = answer.problem
    if problem.get("code") != "clock_ahead":
        return None
    try:
        return time() - datetime.fromisoformat(problem["server_time"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0.0  # ahead by an unknown amount
