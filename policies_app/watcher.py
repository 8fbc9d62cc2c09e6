"""The thread that looks at the database, so that requests need not: revisions, and the keys.

It looks every 200 ms; at once when this process commits a change; and when Redis carries the notice of
another process. With Redis the look goes on every two seconds all the same, because a notice can be lost, and
every 200 ms for as long as Redis cannot be reached.
"""

import asyncio
import logging
import threading
import time

from django.conf import settings
from django.db import Error, connection

from controlplane.access.keyring import Keyring
from policies_app import boards, notices, snapshots
from policies_app.boards import Generation, Look
from policies_app.serving import Serving

log = logging.getLogger(__name__)

LOOK_S = 0.2
LOOK_WITH_NOTICES_S = 0.5
KEYS_S = 0.8  # a revoked key is dead within two
KEYS_AT_MOST_S = 0.1  # between two reads that unknown keys asked for


class Watcher(threading.Thread):
    """One per process. Hands each new generation to the event loop."""

    def __init__(self, serving: Serving, keyring: Keyring, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name="watcher", daemon=True)
        self._serving, self._keyring, self._loop = serving, keyring, loop
        self._generations: dict[str, Generation] = {}
        self._looks: dict[str, Look] = {}
        self._poked = threading.Event()
        self._ending = False
        self._keys_at = 0.0
        self._key_reads = 0
        self._keys_wanted = False
        self._subscriber = notices.Subscriber(self.poke) if settings.REDIS_URL else None
        self.looked = False  # True once everything was read: the process is ready

    def poke(self, *_: object) -> None:
        """Look now."""
        self._poked.set()

    async def keys_read(self) -> None:
        """Until the keys were read again: for a request whose key may have been issued a moment ago."""
        target = self._key_reads + 1
        self._keys_wanted = True
        self.poke()
        deadline = self._loop.time() + 2 * KEYS_S
        while self._key_reads < target and self._loop.time() < deadline:
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        snapshots.off_publish(self.poke)
        if self._subscriber:
            self._subscriber.stop()
        self._ending = True
        self.poke()
        self.join(timeout=30)

    def run(self) -> None:
        snapshots.on_publish(self.poke)
        if self._subscriber:
            self._subscriber.start()
        while not self._ending:
            self._poked.clear()
            try:
                self.look()
                failed = False
            except Error:
                # Routers are served what is in memory; the next look tries a new connection.
                log.warning("the database cannot be looked at; serving what is known", exc_info=True)
                connection.close()
                failed = True
            noticed = self._subscriber is not None and self._subscriber.connected and not failed
            self._poked.wait(LOOK_WITH_NOTICES_S if noticed else LOOK_S)
        connection.close()

    def look(self) -> None:
        """Read the keys when it is time, and every environment that has changed."""
        now = time.monotonic()
        if now - self._keys_at >= (KEYS_AT_MOST_S if self._keys_wanted else KEYS_S):
            self._keys_wanted = False
            self._keyring.reload()
            self._keys_at = now
            self._key_reads += 1
        elif self._keys_wanted:
            self._loop.call_soon_threadsafe(self._loop.call_later, KEYS_AT_MOST_S, self.poke)
        looks = boards.looks()
        for name, look in looks.items():
            if look != self._looks.get(name):
                self._take(name, boards.read(look, self._generations.get(name)))
        for name in self._generations.keys() - looks.keys():
            self._take(name, None)
        self.looked = True

    def _take(self, name: str, generation: Generation | None) -> None:
        if generation is None:
            self._generations.pop(name, None)
            self._looks.pop(name, None)
        else:
            self._generations[name] = generation
            self._looks[name] = generation.look
        self._loop.call_soon_threadsafe(self._serving.swap, name, generation)
