"""The thread that polls the database for revisions and keys, so that requests need not.

It polls every 200 ms, immediately when this process commits a change, and when Redis delivers a notice from another
process. With Redis it still polls every two seconds, because a notice can be lost, and every 200 ms while Redis is
unreachable. Keys have their own interval: no notice reports a revoked key, and it must stop working within two seconds.

While the database is away, routers are served from memory.
"""

import asyncio
import logging
import time

from django.conf import settings

from controlplane.access.keyring import Keyring
from controlplane.core.threads import LoopThread
from policies_app.snapshots import build, cache, notices
from policies_app.snapshots.cache import CachedEnvironment, SnapshotCache, SnapshotHeader
from policies_app.snapshots.high_water import HighWater
from policies_app.snapshots.serving import SnapshotService

log = logging.getLogger(__name__)

POLL_S = 0.2
POLL_WITH_NOTICES_S = 2.0
KEYS_S = 0.8
KEYS_AT_MOST_S = 0.1  # shortest interval between reads requested by unknown keys


class Watcher(LoopThread):
    """Polls the database, one per process. Passes each new revision to the event loop."""

    retry_s = POLL_S

    def __init__(self, snapshots: SnapshotService, keyring: Keyring) -> None:
        super().__init__("watcher")
        self._snapshots, self._keyring = snapshots, keyring
        self._loop: asyncio.AbstractEventLoop
        self._cached: SnapshotCache = {}
        self._headers: dict[str, SnapshotHeader] = {}
        self._high_water = HighWater()
        self._reported = 1  # counts possible changes
        self._handled = 0  # value of `_reported` at the last complete poll
        self.keys_at: float | None = None  # monotonic time of their last read
        self._key_reads = 0
        self._keys_wanted = False
        self._subscriber = notices.Subscriber(self.poke) if settings.REDIS_URL else None
        self.polled_at: float | None = None  # monotonic time of the last complete poll

    def start_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start polling; results are passed to this loop."""
        self._loop = loop
        build.on_publish(self.poke)
        if self._subscriber:
            self._subscriber.start()
        self.start()

    @property
    def polled(self) -> bool:
        """Whether everything was read once, so that the process is ready."""
        return self.polled_at is not None

    def polled_ago(self) -> float | None:
        """Return the seconds since the last complete poll: the maximum age of what is served."""
        return None if self.polled_at is None else time.monotonic() - self.polled_at

    def keys_read_ago(self) -> float | None:
        """Return the seconds since the keys were last read: the maximum delay of a revocation."""
        return None if self.keys_at is None else time.monotonic() - self.keys_at

    def poke(self, *_: object) -> None:
        """Poll now."""
        self._reported += 1
        self.wake()

    async def keys_read(self) -> None:
        """Wait until the keys have been read again, for a request whose key may have just been issued."""
        target = self._key_reads + 1
        self._keys_wanted = True
        self.wake()
        deadline = self._loop.time() + 2 * KEYS_S
        while self._key_reads < target and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def stop(self, timeout: float = 30) -> bool:
        build.off_publish(self.poke)
        if self._subscriber:
            self._subscriber.request_stop()
        return super().stop(timeout)

    def round(self) -> float:
        self.poll()
        return min(self._keys_due(), self._poll_due())

    def poll(self) -> None:
        """Read the keys if due. Read every changed environment if that is due or a change was reported."""
        read = self._keys_due() <= 0
        if read:
            wanted, self._keys_wanted = self._keys_wanted, False
            self._reported += wanted  # the environment may be as new as its key
            self._keyring.reload()
            self.keys_at = time.monotonic()
        reported = self._reported
        if reported != self._handled or self._poll_due() <= 0:
            headers = cache.read_headers()
            for name, header in headers.items():
                if header != self._headers.get(name):
                    self._take(name, cache.read_environment(header, self._cached.get(name)))
            for name in self._headers.keys() - headers.keys():
                self._take(name, None)
            self._high_water.note(environment.header for environment in self._cached.values())
            self._handled, self.polled_at = reported, time.monotonic()
        if read:  # on the event loop, so that the results have arrived there first
            self._loop.call_soon_threadsafe(self._note_keys_read)

    def _note_keys_read(self) -> None:
        self._key_reads += 1

    def _keys_due(self) -> float:
        """Return the seconds until the next read of the keys; an unknown key makes it earlier."""
        if self.keys_at is None:
            return 0
        every = KEYS_AT_MOST_S if self._keys_wanted else KEYS_S
        return self.keys_at + every - time.monotonic()

    def _poll_due(self) -> float:
        if self.polled_at is None:
            return 0
        noticed = self._subscriber is not None and self._subscriber.connected
        return self.polled_at + (POLL_WITH_NOTICES_S if noticed else POLL_S) - time.monotonic()

    def _take(self, name: str, environment: CachedEnvironment | None) -> None:
        self._cached.pop(name, None)
        if environment is None:
            self._headers.pop(name, None)
            self._loop.call_soon_threadsafe(self._snapshots.replace, name, None)
            return
        self._headers[name] = environment.header
        if self._high_water.is_behind(environment.header):
            log.error("%s: the database is older than what routers have; run manage.py post_restore", name)
            self._loop.call_soon_threadsafe(self._snapshots.withhold, name)
            return
        self._cached[name] = environment
        self._loop.call_soon_threadsafe(self._snapshots.replace, name, environment)
