"""The cache that signing in needs: Redis while it answers, this process's memory while it does not.

It holds the codes of a second factor that were used, and counts failures. Without Redis each process has its own; an
error instead would keep everybody out who has a second factor, when people must act because the workers stand still.
"""

import logging
import math
import time
from typing import Any

import redis
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.redis import RedisCache

log = logging.getLogger(__name__)
LEFT_ALONE_S = 5.0  # after a failure, so that one sign-in does not wait for each of its time limits


class RedisOrMemory(RedisCache):
    """Django's Redis cache. An operation that fails is done in memory."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._memory = LocMemCache("while redis is away", {})
        self._away_until = -math.inf  # monotonic time

    def add(self, *given: Any, **named: Any) -> Any:
        return self._either("add", *given, **named)

    def get(self, *given: Any, **named: Any) -> Any:
        return self._either("get", *given, **named)

    def set(self, *given: Any, **named: Any) -> Any:
        return self._either("set", *given, **named)

    def delete(self, *given: Any, **named: Any) -> Any:
        return self._either("delete", *given, **named)

    def _either(self, operation: str, *given: Any, **named: Any) -> Any:
        if time.monotonic() >= self._away_until:
            try:
                return getattr(super(), operation)(*given, **named)
            except redis.RedisError as error:
                log.warning(
                    "the cache is in this process's memory, because Redis fails (%s)", type(error).__name__
                )
                self._away_until = time.monotonic() + LEFT_ALONE_S
        return getattr(self._memory, operation)(*given, **named)
