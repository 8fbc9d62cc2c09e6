"""Tell the control plane which snapshot this router applied: `POST /router/v1/acks`, until it succeeds.

Usually the next poll's If-None-Match contains the same information, so one ack is enough. If it does not, because the
snapshot could not be written to disk or because a CDN is polled, the ack is repeated: the control plane trusts an
ack only for a while, since the process may have been restarted with an older snapshot from disk.
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

# Must be shorter than the 90 s for which the control plane trusts an ack.
AGAIN_S = 60.0


class Acks:
    """Sends acks and remembers which succeeded. Setting `due` starts a round at once.

    alone   whether acks are the only information, because snapshots are polled elsewhere
    """

    def __init__(self, router: str, good: LastKnownGood, *, alone: bool = False) -> None:
        self.due = asyncio.Event()
        self._router, self._good, self._alone = router, good, alone
        self._backoff = Backoff()
        self._applied: tuple[str, int] | None = None
        self._rejections: set[Rejection] = set()

    async def rounds(self, transport: Transport) -> None:
        """Send acks until cancelled."""
        wait: float | None = None
        while True:
            await until(self.due, wait)
            wait = await guarded(lambda: self.tell(transport), lambda _: self.failed())

    async def tell(self, transport: Transport) -> float | None:
        """Send new acks. Return the seconds until the next round, or None to wait for `due`."""
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
        """Report once that this process is leaving; from then on it is not counted."""
        snapshot = self._good.current
        if snapshot is not None:
            about = {"router": self._router, "revision": snapshot.revision, "epoch": snapshot.epoch}
            with suppress(Unreachable):
                await _send(transport, {**about, "state": "leaving"})

    def failed(self, retry_after_s: float | None = None) -> float:
        """Count a failed round and return the seconds until the next."""
        return self._backoff.failure(retry_after_s)


async def _send(transport: Transport, ack: dict[str, Any]) -> Answer:
    return await transport.post("acks", json.dumps(ack).encode())


def _settled(answer: Answer) -> bool:
    """Return whether an ack need not be repeated: it was accepted, or will never be.

    Any other answer, such as a redirect, a login page or a proxy's 400, is not from a control plane that has read it.
    """
    return answer.status in (204, 413) or answer.refuses_body


def _rejected(rejection: Rejection) -> dict[str, str]:
    return {
        "state": "rejected",
        "workload": rejection.workload,
        "digest": rejection.digest,
        "error": rejection.error[:1_000].replace("\0", "\ufffd") or "rejected",
    }
