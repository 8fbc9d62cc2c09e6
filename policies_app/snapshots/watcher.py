"""The thread that looks at the database, so that requests need not: revisions, and the keys.

It looks every 200 ms; at once when this process commits a change; and when Redis carries the notice of
another process. With Redis the look goes on every two seconds all the same, because a notice can be lost, and
every 200 ms for as long as Redis cannot be reached. The keys have a clock of their own: no notice tells of a key
that was revoked, and it has to be dead within two seconds.
"""

import asyncio
import logging
import threading
import time

from django.conf import settings
from django.db import Error, connection

from controlplane.access.keyring import Keyring
from policies_app.snapshots import build, cache, notices
from policies_app.snapshots.cache import Generation, Look
from policies_app.snapshots.serving import Serving

log = logging.getLogger(__name__)

LOOK_S = 0.2
LOOK_WITH_NOTICES_S = 2.0
KEYS_S = 0.8
KEYS_AT_MOST_S = 0.1  # between two reads that unknown keys asked for


class Watcher(threading.Thread):
    """One per process. Hands each new generation to the event loop."""

    def __init__(self, serving: Serving, keyring: Keyring, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="watcher", daemon=True)
        self._serving, self._keyring, self._loop = serving, keyring, loop
        self._generations: dict[str, Generation] = {}
        self._looks: dict[str, Look] = {}
        self._woken = threading.Event()
        self._told = 1  # how often something may have changed
        self._looked_for = 0  # as of the last whole look
        self._ending = False
        self.keys_at: float | None = None  # of their last read, by the monotonic clock
        self._key_reads = 0
        self._keys_wanted = False
        self._subscriber = notices.Subscriber(self.poke) if settings.REDIS_URL else None
        self.looked_at: float | None = None  # of the last whole look, by the monotonic clock

    @property
    def looked(self) -> bool:
        """True once everything was read: the process is ready."""
        return self.looked_at is not None

    def poke(self, *_: object) -> None:
        """Look now."""
        self._told += 1
        self._woken.set()

    async def keys_read(self) -> None:
        """Until the keys were read again: for a request whose key may have been issued a moment ago."""
        target = self._key_reads + 1
        self._keys_wanted = True
        self._woken.set()
        deadline = self._loop.time() + 2 * KEYS_S
        while self._key_reads < target and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        build.off_publish(self.poke)
        if self._subscriber:
            self._subscriber.stop()
        self._ending = True
        self.poke()
        self.join(timeout=30)

    def run(self) -> None:
        build.on_publish(self.poke)
        if self._subscriber:
            self._subscriber.start()
        while not self._ending:
            self._woken.clear()
            try:
                self.look()
                failed = False
            except Error:
                # Routers are served what is in memory; the next look tries a new connection.
                log.warning("the database cannot be looked at; serving what is known", exc_info=True)
                connection.close()
                failed = True
            self._woken.wait(LOOK_S if failed else min(self._keys_due(), self._look_due()))
        connection.close()

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
            looks = cache.looks()
            for name, look in looks.items():
                if look != self._looks.get(name):
                    self._take(name, cache.read(look, self._generations.get(name)))
            for name in self._generations.keys() - looks.keys():
                self._take(name, None)
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

    def _take(self, name: str, generation: Generation | None) -> None:
        if generation is None:
            self._generations.pop(name, None)
            self._looks.pop(name, None)
        else:
            self._generations[name] = generation
            self._looks[name] = generation.look
        self._loop.call_soon_threadsafe(self._serving.swap, name, generation)
