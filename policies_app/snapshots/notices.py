"""Notices of a change between processes, by Redis when there is one. Only hints: each may be lost."""

import logging
import time
from collections.abc import Callable
from functools import cache

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from controlplane.core.threads import LoopThread

log = logging.getLogger(__name__)

CHANNEL = "pointsman.revisions"
_PATIENCE_S = 0.5  # a commit is not held up by a Redis that is away
_PINGED_EVERY_S = 5.0


@cache
def _client() -> "redis.Redis":
    return _connected()


def _connected() -> "redis.Redis":
    client: redis.Redis = redis.Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=_PATIENCE_S,
        socket_connect_timeout=_PATIENCE_S,
        retry=Retry(NoBackoff(), 0),  # by itself it tries three times more
    )
    return client


def send(environment: str, revision: int) -> None:
    """Tell the other processes. Without Redis they look every 200 ms."""
    if not settings.REDIS_URL:
        return
    try:
        _client().publish(CHANNEL, f"{environment} {revision}")
    except (
        Exception
    ) as error:  # the change is committed: whatever fails here must not reach the person who made it
        log.warning(
            "no notice of %s r%s was sent (%s); processes will look by themselves",
            environment,
            revision,
            error,
        )


class Subscriber(LoopThread):
    """Calls `poke` for each notice, and once after each connection: something may have come before it."""

    expected = (redis.RedisError,)

    def __init__(self, poke: Callable[[], None]) -> None:
        super().__init__("notices")
        self._poke = poke
        self.connected = False

    def round(self) -> float:
        """Listen for as long as the connection lasts."""
        client = _connected()
        try:
            # redis-py leaves `pubsub` without types.
            with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(CHANNEL)
                self.connected = True
                self._poke()
                pinged = time.monotonic()
                while not self._ending.is_set():
                    if subscription.get_message(timeout=1.0):
                        self._poke()
                    if time.monotonic() - pinged > _PINGED_EVERY_S:  # or a half-open connection stays so
                        subscription.ping()
                        pinged = time.monotonic()
        finally:
            self.connected = False
            client.close()
        return 0
