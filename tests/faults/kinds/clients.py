"""The routers of one gateway, and their connections to it."""

import socket
import struct
from contextlib import ExitStack, suppress

from tests.faults.kinds.kind import away, fault, wrong
from tests.faults.kinds.place import Place

PAGE = b"GET /console/login/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
FILE = b"GET /static/console/console.css HTTP/1.1\r\nHost: localhost\r\n\r\n"
DAY_S = 86_400.0


@fault("clients")
def routers_restarted(place: Place) -> None:
    for router in place.routers:
        router.restart()


@fault("clients")
def router_clocks_wrong(place: Place) -> None:
    """The clocks are an hour or a day behind, or as far ahead as the gateway accepts."""
    for router in place.routers:
        router.ahead_s = place.chance.choice((-DAY_S, -3_600.0, 200.0))
    place.last(2)
    for router in place.routers:
        router.ahead_s = 0.0


@fault("clients")
def router_disks_full(place: Place) -> None:
    """Routers can store neither snapshots nor outcomes on disk."""
    for router in place.routers:
        router.disk.full = True
    place.last(2)
    for router in place.routers:
        router.disk.full = False


@fault("clients")
def clients_cut(place: Place) -> None:
    place.door.cut()


@fault("clients")
def clients_held(place: Place) -> None:
    """Half-open connections that are cut after a while, as by a load balancer's idle timeout."""
    place.door.hold()
    place.last(2)
    place.door.cut()


@fault("clients")
def clients_delayed(place: Place) -> None:
    with wrong(place.door, how=lambda door: door.delay(0.2)):
        place.last(2)


@fault("clients")
def clients_drip(place: Place) -> None:
    with wrong(place.door, how=lambda door: door.drip(2_000)):
        place.last(2)


@fault("clients")
def clients_refused(place: Place) -> None:
    with wrong(place.door, how=away):
        place.last(2)


@fault("clients")
def clients_reset(place: Place) -> None:
    """Two hundred clients send a request and disconnect with a reset."""
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", place.port), timeout=2) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(PAGE)


@fault("clients")
def clients_do_not_read(place: Place) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            with suppress(OSError):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", place.port), timeout=2))
                client.settimeout(2)
                client.sendall(FILE * 30)
        place.last(2)
