"""Notices of changes between processes, through Redis if there is one. Only hints: each may be lost."""

import logging
import time
from collections.abc import Callable
from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.core.redis_or_memory import LeftAlone
from controlplane.core.threads import LoopThread

log = logging.getLogger(__name__)

CHANNEL = "pointsman.revisions"
_PATIENCE_S = 0.5  # an unreachable Redis must not delay a commit
_PINGED_EVERY_S = 5.0
_left_alone = LeftAlone()


@cache
def _client() -> "redis.Redis":
    return _connected()


def _connected() -> "redis.Redis":
    client: redis.Redis = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_PATIENCE_S,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),  # by default it retries three times
    )
    return client


def send(environment: str, revision: int) -> None:
    """Notify the other processes. Without Redis they poll every 200 ms.

    A change in many environments sends many notices, so a Redis that has just failed is left alone.
    """
    if not settings.REDIS_URL or _left_alone.now():
        return
    try:
        _client().publish(CHANNEL, f"{environment} {revision}")
    except (
        Exception
    ) as error:  # The change is committed, so no failure here may reach the person who made it.
        _left_alone.begin()
        log.warning(
            "no notice of %s r%s was sent (%s); processes will find the change by polling",
            environment,
            revision,
            error,
        )


class Subscriber(LoopThread):
    """Calls `poke` for each notice, and once after connecting, because something may have been missed."""

    expected = (redis.RedisError,)

    def __init__(self, poke: Callable[[], None]) -> None:
        super().__init__("notices")
        self._poke = poke
        self.connected = False

    def round(self) -> float:
        """Listen until the connection ends."""
        client = _connected()
        try:
            # redis-py has no types for `pubsub`.
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(CHANNEL)
                self.connected = True
                self._poke()
                pinged = time.monotonic()
                while not self._ending.is_set():
                    if subscription.get_message(timeout=1.0):
                        self._poke()
                    if time.monotonic() - pinged > _PINGED_EVERY_S:  # detects half-open connections
                        subscription.ping()
                        pinged = time.monotonic()
        finally:
            self.connected = False
            client.close()
        return 0
