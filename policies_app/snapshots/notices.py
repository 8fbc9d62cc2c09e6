"""Notices of a change between processes, by Redis when there is one. Only hints: each may be lost."""

import logging
import threading
from collections.abc import Callable
from functools import cache

import redis
from django.conf import settings

log = logging.getLogger(__name__)

CHANNEL = "pointsman.revisions"
_PATIENCE_S = 0.5  # a commit is not held up by a Redis that is away
_RETRY_S = 1.0


@cache
def _client() -> "redis.Redis":
    client: redis.Redis = redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=_PATIENCE_S, socket_connect_timeout=_PATIENCE_S
    )
    return client


def send(environment: str, revision: int) -> None:
    """Tell the other processes. Without Redis they look every 200 ms."""
    if not settings.REDIS_URL:
        return
    try:
        _client().publish(CHANNEL, f"{environment} {revision}")
    except redis.RedisError as error:
        log.warning(
            "no notice of %s r%s was sent (%s); processes will look by themselves",
            environment,
            revision,
            error,
        )


class Subscriber(threading.Thread):
    """Calls `poke` for each notice, and once after each connection: something may have come before it."""

    def __init__(self, poke: Callable[[], None]) -> None:
        super().__init__(name="notices", daemon=True)
        self._poke = poke
        self._ending = threading.Event()
        self.connected = False

    def stop(self) -> None:
        self._ending.set()

    def run(self) -> None:
        while not self._ending.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                if self.connected and not self._ending.is_set():
                    log.warning("Redis is away (%s); looking at the database every 200 ms", error)
            self.connected = False
            self._ending.wait(_RETRY_S)

    def _listen(self) -> None:
        client = redis.Redis.from_url(
            settings.REDIS_URL, socket_connect_timeout=_PATIENCE_S, health_check_interval=5
        )
        # redis-py leaves `pubsub` without types.
        with client.pubsub(ignore_subscribe_messages=True) as subscription:  # type: ignore[no-untyped-call]
            subscription.subscribe(CHANNEL)
            self.connected = True
            self._poke()
            while not self._ending.is_set():
                if subscription.get_message(timeout=1.0):
                    self._poke()
