"""The thread that looks at the database, so that requests need not: revisions, and the keys.

It looks every 200 ms; at once when this process commits a change; and when Redis carries the notice of
another process. With Redis the look goes on every two seconds all the same, because a notice can be lost, and
every 200 ms for as long as Redis cannot be reached. The keys have a clock of their own: no notice tells of a key
that was revoked, and it has to be dead within two seconds.

While the database is away routers are served what is in memory.
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

LOOK_S = 0.2
LOOK_WITH_NOTICES_S = 2.0
KEYS_S = 0.8
KEYS_AT_MOST_S = 0.1  # between two reads that unknown keys asked for


class Watcher(LoopThread):
    """One per process. Hands each new revision to the event loop."""

    retry_s = LOOK_S

    def __init__(self, snapshots: SnapshotService, keyring: Keyring) -> None:
        super().__init__("watcher")
        self._snapshots, self._keyring = snapshots, keyring
        self._loop: asyncio.AbstractEventLoop
        self._cached: SnapshotCache = {}
        self._headers: dict[str, SnapshotHeader] = {}
        self._high_water = HighWater()
        self._told = 1  # how often something may have changed
        self._looked_for = 0  # as of the last whole look
        self.keys_at: float | None = None  # of their last read, by the monotonic clock
        self._key_reads = 0
        self._keys_wanted = False
        self._subscriber = notices.Subscriber(self.poke) if settings.REDIS_URL else None
        self.looked_at: float | None = None  # of the last whole look, by the monotonic clock

    def start_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to look; what is found is handed to this loop."""
        self._loop = loop
        build.on_publish(self.poke)
        if self._subscriber:
            self._subscriber.start()
        self.start()

    @property
    def looked(self) -> bool:
        """True once everything was read: the process is ready."""
        return self.looked_at is not None

    def looked_ago(self) -> float | None:
        """Seconds since the last whole look; as old is what is served at most."""
        return None if self.looked_at is None else time.monotonic() - self.looked_at

    def keys_read_ago(self) -> float | None:
        """Seconds since the keys were last read; as late is a revocation at most."""
        return None if self.keys_at is None else time.monotonic() - self.keys_at

    def poke(self, *_: object) -> None:
        """Look now."""
        self._told += 1
        self.wake()

    async def keys_read(self) -> None:
        """Until the keys were read again: for a request whose key may have been issued a moment ago."""
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
        self.look()
        return min(self._keys_due(), self._look_due())

    def look(self) -> None:
        """Read the keys when it is time; when it is, or something was told, every environment that has changed."""
        read = self._keys_due() <= 0
        if read:
            wanted, self._keys_wanted = self._keys_wanted, False
            self._told += wanted  # the environment may be as young as its key
            self._keyring.reload()
            self.keys_at = time.monotonic()
        told = self._told
        if told != self._looked_for or self._look_due() <= 0:
            headers = cache.read_headers()
            for name, header in headers.items():
                if header != self._headers.get(name):
                    self._take(name, cache.read_environment(header, self._cached.get(name)))
            for name in self._headers.keys() - headers.keys():
                self._take(name, None)
            self._high_water.note(environment.header for environment in self._cached.values())
            self._looked_for, self.looked_at = told, time.monotonic()
        if read:  # said on the event loop, so that what was found is in place there
            self._loop.call_soon_threadsafe(self._say_keys_read)

    def _say_keys_read(self) -> None:
        self._key_reads += 1

    def _keys_due(self) -> float:
        """Seconds until the keys are read again; an unknown key asks for it sooner."""
        if self.keys_at is None:
            return 0
        every = KEYS_AT_MOST_S if self._keys_wanted else KEYS_S
        return self.keys_at + every - time.monotonic()

    def _look_due(self) -> float:
        if self.looked_at is None:
            return 0
        noticed = self._subscriber is not None and self._subscriber.connected
        return self.looked_at + (LOOK_WITH_NOTICES_S if noticed else LOOK_S) - time.monotonic()

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
