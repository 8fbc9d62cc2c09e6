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
LEFT_ALONE_S = 5.0


class LeftAlone:
    """Whether Redis has failed a moment ago. Otherwise one sign-in or one change waits for each of its time limits."""

    def __init__(self) -> None:
        self._until = -math.inf  # monotonic time

    def now(self) -> bool:
        return time.monotonic() < self._until

    def begin(self) -> None:
        self._until = time.monotonic() + LEFT_ALONE_S


class RedisOrMemory(RedisCache):
    """Django's Redis cache. An operation that fails is done in memory."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(server, params)
        self._memory = LocMemCache("while redis is away", {})
        self._left_alone = LeftAlone()

    def add(self, *given: Any, **named: Any) -> Any:
        return self._either("add", *given, **named)

    def get(self, *given: Any, **named: Any) -> Any:
        return self._either("get", *given, **named)

    def set(self, *given: Any, **named: Any) -> Any:
        return self._either("set", *given, **named)

    def delete(self, *given: Any, **named: Any) -> Any:
        return self._either("delete", *given, **named)

    def _either(self, operation: str, *given: Any, **named: Any) -> Any:
        if not self._left_alone.now():
            try:
                return getattr(super(), operation)(*given, **named)
            except redis.RedisError as error:
                log.warning(
                    "the cache is in this process's memory, because Redis fails (%s)", type(error).__name__
                )
                self._left_alone.begin()
        return getattr(self._memory, operation)(*given, **named)
