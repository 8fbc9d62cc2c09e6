"""Redis as a broker, as a cache, and as the messenger between processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from tests.faults.kinds.kind import away, fault, wrong
from tests.faults.kinds.place import Place
from tests.support import services


@contextmanager
def _redis(place: Place) -> Iterator["redis.Redis"]:
    client = redis.Redis(port=place.installation.redis_port, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


def _pid(place: Place) -> int:
    with _redis(place) as client:
        return int(client.info()["process_id"])


@fault("Redis")
def redis_killed(place: Place) -> None:
    """F14: workers that exit because of it are restarted by the documented supervisors."""
    os.kill(_pid(place), signal.SIGKILL)
    place.last(2)
    services.start_redis(place.installation.redis_port)


@fault("Redis")
def redis_stands_still(place: Place) -> None:
    pid = _pid(place)
    os.kill(pid, signal.SIGSTOP)
    place.last(2)
    os.kill(pid, signal.SIGCONT)


@fault("Redis")
def redis_emptied(place: Place) -> None:
    with _redis(place) as client:
        client.flushall()


@fault("Redis")
def redis_out_of_memory(place: Place) -> None:
    """F14: Redis refuses writes because its memory is full."""
    with _redis(place) as client:
        client.config_set("maxmemory", "1")
        place.last(3)
        client.config_set("maxmemory", "0")


@fault("Redis")
def redis_read_only(place: Place) -> None:
    """Redis becomes a replica and refuses writes, as after a failover."""
    with _redis(place) as client:
        client.replicaof("127.0.0.1", "1")
        place.last(2)
        client.replicaof("NO", "ONE")


@fault("Redis")
def redis_away(place: Place) -> None:
    with wrong(place.installation.redis_door, how=away):
        place.last(2)


@fault("Redis")
def redis_cut(place: Place) -> None:
    place.installation.redis_door.cut()


@fault("Redis")
def redis_held(place: Place) -> None:
    """Half-open: existing connections no longer carry anything, not even a reset."""
    place.installation.redis_door.hold()


@fault("Redis")
def redis_slow(place: Place) -> None:
    with wrong(place.installation.redis_door, how=lambda door: door.delay(0.3)):
        place.last(2)
