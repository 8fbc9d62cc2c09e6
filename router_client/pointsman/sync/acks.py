"""Tells the control plane which snapshot this router applied: `POST /router/v1/acks`, until it is heard.

Mostly the next poll's If-None-Match says it again, so that one ack is enough. Where it does not, because the
disk refuses what was applied or because a CDN is polled, the ack is repeated: the control plane believes an
ack only for a while, since the process may have been restarted from an older disk.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from pointsman.sync.backoff import Backoff
from pointsman.sync.last_known_good import LastKnownGood
from pointsman.sync.loop import guarded, until
from pointsman.sync.snapshot import Rejection
from pointsman.sync.transport import Answer, Transport, Unreachable

__all__ = ["Acks"]

# More often than the control plane forgets an ack: it believes one for 90 s.
AGAIN_S = 60.0


class Acks:
    """What was acknowledged and what is still to be. Setting `due` asks for a round at once.

    alone   nothing else tells the control plane: snapshots are polled elsewhere
    """

    def __init__(self, router: str, good: LastKnownGood, *, alone: bool = False) -> None:
        self.due = asyncio.Event()
        self._router, self._good, self._alone = router, good, alone
        self._backoff = Backoff()
        self._applied: tuple[str, int] | None = None
        self._rejections: set[Rejection] = set()

    async def rounds(self, transport: Transport) -> None:
        """Acknowledge for ever."""
        wait: float | None = None
        while True:
            await until(self.due, wait)
            wait = await guarded(lambda: self.tell(transport), lambda _: self.failed())

    async def tell(self, transport: Transport) -> float | None:
        """Send what is new; the seconds until the next round, None when nothing is to be sent before `due`."""
        self.due.clear()
        snapshot = self._good.current
        if snapshot is None:
            return None
        about = {"router": self._router, "revision": snapshot.revision, "epoch": snapshot.epoch}
        repeating = self._alone or self._good.unstored
        self._rejections &= set(snapshot.rejected)
        try:
            if repeating or self._applied != (snapshot.epoch, snapshot.revision):
                answer = await _send(transport, {**about, "state": "applied"})
                if not _settled(answer):
                    return self.failed(answer.retry_after_s)
                self._applied = (snapshot.epoch, snapshot.revision)
            for rejection in snapshot.rejected:
                if rejection not in self._rejections:
                    answer = await _send(transport, {**about, **_rejected(rejection)})
                    if not _settled(answer):
                        return self.failed(answer.retry_after_s)
                    self._rejections.add(rejection)
        except Unreachable:
            return self.failed()
        self._backoff.success()
        return self._backoff.spread(AGAIN_S) if repeating else None

    async def leave(self, transport: Transport) -> None:
        """Say that this process ends, once: from then on it counts for nothing."""
        snapshot = self._good.current
        if snapshot is not None:
            about = {"router": self._router, "revision": snapshot.revision, "epoch": snapshot.epoch}
            with suppress(Unreachable):
                await _send(transport, {**about, "state": "leaving"})

    def failed(self, retry_after_s: float | None = None) -> float:
        """Count a round that was not heard; the seconds until the next."""
        return self._backoff.failure(retry_after_s)


async def _send(transport: Transport, ack: dict[str, Any]) -> Answer:
    return await transport.post("acks", json.dumps(ack).encode())


def _settled(answer: Answer) -> bool:
    """Whether not to send it again: it was taken, or it is refused for ever."""
    return answer.status < 500 and answer.status not in (401, 403, 404, 408, 429)


def _rejected(rejection: Rejection) -> dict[str, str]:
    return {
        "state": "rejected",
        "workload": rejection.workload,
        "digest": rejection.digest,
        "error": rejection.error[:1_000].replace("\0", "\ufffd") or "rejected",
    }
