"""The faults. Each is done to an installation and undone again; what is left to do is the installation's own."""

import os
import random
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

import redis

from tests.faults.installation import Installation, pause
from tests.faults.load import Load
from tests.support import services
from tests.support.proxy import Proxy

Inject = Callable[[Installation, Load, random.Random], None]


@dataclass(frozen=True)
class Kind:
    """`part`: what it happens to. `needs`: nothing, "postgres" (and Redis, beside it), or "alone": a PostgreSQL that
    nobody else uses.
    """

    name: str
    part: str
    inject: Inject
    needs: str


KINDS: list[Kind] = []


def fault(part: str, needs: str = "") -> Callable[[Inject], Inject]:
    def add(inject: Inject) -> Inject:
        KINDS.append(Kind(inject.__name__, part, inject, needs))
        return inject

    return add


def possible(installation: Installation, *, whole: bool) -> list[Kind]:
    """`whole`: all that can be; else, on PostgreSQL, only what SQLite's installation cannot have, so that a slice on
    each is all kinds once, but for those that would stop the server under other tests.
    """
    if not installation.on_postgres:
        has = {""}
    elif not whole:
        has = {"postgres"}
    else:
        has = {"", "postgres", *(("alone",) if services.may_restart_postgres() else ())}
    return [kind for kind in KINDS if kind.needs in has]


# --- processes -----------------------------------------------------------------------------------------


def _stands_still(installation: Installation, name: str, chance: random.Random) -> None:
    process = chance.choice(installation.named(name))
    process.signal(signal.SIGSTOP)
    pause(2)
    process.signal(signal.SIGCONT)


def _kill_a_child(installation: Installation, name: str, chance: random.Random) -> None:
    for child in chance.choice(installation.named(name)).children():
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


@fault("processes")
def gateway_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    chance.choice(installation.named("gateway")).signal(signal.SIGKILL)


@fault("processes")
def gateway_worker_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    """granian's worker, which its parent starts anew."""
    _kill_a_child(installation, "gateway", chance)


@fault("processes")
def gateway_parent_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    """The worker is left alone, and must not go on for ever."""
    chance.choice(installation.named("gateway")).running.kill()


@fault("processes")
def gateway_ended(installation: Installation, load: Load, chance: random.Random) -> None:
    chance.choice(installation.named("gateway")).running.send_signal(signal.SIGTERM)


@fault("processes")
def gateway_stands_still(installation: Installation, load: Load, chance: random.Random) -> None:
    _stands_still(installation, "gateway", chance)


@fault("processes", "postgres")
def worker_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    chance.choice(installation.named("worker")).signal(signal.SIGKILL)


@fault("processes", "postgres")
def worker_pool_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    _kill_a_child(installation, "worker", chance)


@fault("processes", "postgres")
def worker_ended(installation: Installation, load: Load, chance: random.Random) -> None:
    chance.choice(installation.named("worker")).running.send_signal(signal.SIGTERM)


@fault("processes", "postgres")
def workers_stand_still(installation: Installation, load: Load, chance: random.Random) -> None:
    for process in installation.named("worker"):
        process.signal(signal.SIGSTOP)
    pause(3)
    for process in installation.named("worker"):
        process.signal(signal.SIGCONT)


@fault("processes", "postgres")
def beats_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    for process in installation.named("beat"):
        process.signal(signal.SIGKILL)


@fault("processes")
def everything_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    """The machine went down: all processes at once."""
    for process in installation.processes:
        process.signal(signal.SIGKILL)


# --- routers, and what lies between them and the gateways --------------------------------------------------


@fault("routers")
def routers_restarted(installation: Installation, load: Load, chance: random.Random) -> None:
    for router in (*load.routers, *load.recorders):
        router.restart()


@fault("routers")
def clients_cut(installation: Installation, load: Load, chance: random.Random) -> None:
    chance.choice(installation.doors).cut()


@fault("routers")
def clients_held(installation: Installation, load: Load, chance: random.Random) -> None:
    """Half open, and cut after a while, as a load balancer's idle limit does."""
    door = chance.choice(installation.doors)
    door.hold()
    pause(2)
    door.cut()


@fault("routers")
def clients_delayed(installation: Installation, load: Load, chance: random.Random) -> None:
    _for_a_while(chance.choice(installation.doors), lambda door: door.delay(0.2), 2)


@fault("routers")
def clients_drip(installation: Installation, load: Load, chance: random.Random) -> None:
    _for_a_while(chance.choice(installation.doors), lambda door: door.drip(2_000), 2)


@fault("routers")
def clients_refused(installation: Installation, load: Load, chance: random.Random) -> None:
    door = chance.choice(installation.doors)
    door.refuse()
    door.cut()
    pause(1)
    door.heal()


@fault("routers")
def clients_reset(installation: Installation, load: Load, chance: random.Random) -> None:
    """Two hundred that ask and hang up with a reset."""
    port = int(chance.choice(installation.direct).rpartition(":")[2])
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(b"GET /console/login/ HTTP/1.1\r\nHost: localhost\r\n\r\n")


@fault("routers")
def clients_do_not_read(installation: Installation, load: Load, chance: random.Random) -> None:
    port = int(chance.choice(installation.direct).rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(30):
            with suppress(OSError):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=2))
                client.settimeout(2)
                client.sendall(b"GET /static/console/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30)
        pause(2)


def _for_a_while(proxy: Proxy, wrong: Callable[[Proxy], None], seconds: float) -> None:
    wrong(proxy)
    pause(seconds)
    proxy.heal()


# --- Redis -----------------------------------------------------------------------------------------------


@contextmanager
def _redis(installation: Installation) -> Iterator["redis.Redis"]:
    client = redis.Redis(port=installation.redis_port, socket_timeout=5)
    try:
        yield client
    finally:
        client.close()


@fault("Redis", "postgres")
def redis_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    """F14: workers that end of it are started again by what the documents give."""
    with _redis(installation) as client:
        pid = int(client.info()["process_id"])
    os.kill(pid, signal.SIGKILL)
    pause(2)
    services.start_redis(installation.redis_port)


@fault("Redis", "postgres")
def redis_emptied(installation: Installation, load: Load, chance: random.Random) -> None:
    with _redis(installation) as client:
        client.flushall()


@fault("Redis", "postgres")
def redis_out_of_memory(installation: Installation, load: Load, chance: random.Random) -> None:
    """F14."""
    with _redis(installation) as client:
        client.config_set("maxmemory", "1")
        pause(4)
        client.config_set("maxmemory", "0")


@fault("Redis", "postgres")
def redis_cut(installation: Installation, load: Load, chance: random.Random) -> None:
    installation.redis_door.cut()


@fault("Redis", "postgres")
def redis_held(installation: Installation, load: Load, chance: random.Random) -> None:
    """Half open: nothing comes on the present connections any more, neither a word nor a reset."""
    installation.redis_door.hold()


@fault("Redis", "postgres")
def redis_slow(installation: Installation, load: Load, chance: random.Random) -> None:
    _for_a_while(installation.redis_door, lambda door: door.delay(0.3), 3)


# --- the database ------------------------------------------------------------------------------------------


@fault("database")
def database_locked(installation: Installation, load: Load, chance: random.Random) -> None:
    installation.administrator.locked(3)


@fault("database", "postgres")
def backends_killed(installation: Installation, load: Load, chance: random.Random) -> None:
    installation.administrator.kill_backends()


@fault("database", "postgres")
def database_cut(installation: Installation, load: Load, chance: random.Random) -> None:
    for proxy in installation.databases:
        proxy.cut()


@fault("database", "postgres")
def database_held(installation: Installation, load: Load, chance: random.Random) -> None:
    """Half open, as a firewall leaves it that forgot a connection."""
    for proxy in installation.databases:
        proxy.hold()


@fault("database", "postgres")
def database_away(installation: Installation, load: Load, chance: random.Random) -> None:
    for proxy in installation.databases:
        proxy.refuse()
        proxy.cut()
    pause(3)
    for proxy in installation.databases:
        proxy.heal()


@fault("database", "postgres")
def database_slow(installation: Installation, load: Load, chance: random.Random) -> None:
    for proxy in installation.databases:
        proxy.delay(0.1)
    pause(3)
    for proxy in installation.databases:
        proxy.heal()


@fault("database", "postgres")
def database_drips(installation: Installation, load: Load, chance: random.Random) -> None:
    for proxy in installation.databases:
        proxy.drip(5_000)
    pause(3)
    for proxy in installation.databases:
        proxy.heal()


@fault("database", "postgres")
def database_read_only(installation: Installation, load: Load, chance: random.Random) -> None:
    installation.administrator.read_only(3)


@fault("database", "postgres")
def connections_exhausted(installation: Installation, load: Load, chance: random.Random) -> None:
    installation.administrator.full(3)


@fault("database", "alone")
def postgres_stopped_at_once(installation: Installation, load: Load, chance: random.Random) -> None:
    """An immediate shutdown, which leaves all to the recovery at the next start."""
    services.stop_postgres_at_once()
    pause(1)
    services.start_postgres_again()
