"""Clients that send or read a byte a second cost the others nothing."""

import socket
from contextlib import suppress

import httpx
import pytest

from controlplane.server import bodies
from controlplane.web.shares import Shared
from tests.support.plane import PATIENCE_S, Plane, Served, Server, router_key

SLOW = 500


def test_it_serves_others_while_500_clients_send_slowly(served: Served) -> None:
    headers = {"Authorization": f"Bearer {served.key}"}
    with Server() as server:
        request = (
            "POST /router/v1/outcomes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
            f"Authorization: Bearer {served.key}\r\n\r\n{{"
        ).encode()
        dripping = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(SLOW)]
        try:
            for connection in dripping:
                connection.sendall(request)
            with httpx.Client(headers=headers, timeout=20) as client:
                for _ in range(3):
                    for connection in dripping:
                        with suppress(OSError):  # a slow machine may have dropped it already
                            connection.sendall(b" ")
                    for _ in range(20):
                        assert client.get(f"{server.url}/router/v1/snapshot").status_code == 200
        finally:
            for connection in dripping:
                connection.close()


def test_it_gives_up_on_a_body_that_does_not_arrive(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PATIENCE_S", 0.2)
    asked = plane.begin("/router/v1/outcomes", served.key, method="POST", body=b"{", content_length="5000")
    answer = asked.result(PATIENCE_S)
    assert (answer.status, answer.code) == (400, "malformed_body")
    assert "did not arrive" in answer.json()["detail"]


def test_it_limits_the_memory_of_all_bodies(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "HELD_BYTES", 1_000)
    refused = plane.post("/router/v1/outcomes", served.key, b" " * 2_000)
    assert (refused.status, refused.code) == (429, "too_many_requests")
    # The memory has been released.
    assert plane.post("/router/v1/outcomes", served.key, b" " * 900).status == 400


def test_one_key_cannot_use_up_the_memory_for_the_bodies_of_others(
    plane: Plane, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """129 connections of one key that each sent all but the last byte stopped the reports of every environment."""
    body = b" " * (1024 * 1024 - 1)
    monkeypatch.setattr(bodies, "HELD_BYTES", 8 * len(body))
    held = plane.gateway._bodies._held
    begun = [
        plane.begin("/router/v1/outcomes", served.key, method="POST", body=body, content_length="1048576")
        for _ in range(9)
    ]
    plane.until(lambda: sum(asked.done() for asked in begun) >= 4)
    refused = [asked.result(PATIENCE_S) for asked in begun if asked.done()]
    assert {(answer.status, answer.code) for answer in refused} == {(429, "too_many_requests")}
    plane.until(lambda: held.held <= 4 * len(body))
    other = plane.post("/router/v1/outcomes", router_key(served.environment.name), body)
    assert other.status == 400  # read to its end: no JSON
    for asked in begun:
        if not asked.done():
            asked.hang_up()
    plane.until(lambda: not held.held)
    assert plane.post("/router/v1/outcomes", served.key, body).status == 400


def test_something_is_left_however_many_senders_are_greedy() -> None:
    shared = Shared()
    for greedy in range(20):
        while shared.has_room(greedy, most=1_000, small=0, more=1):
            shared.take(greedy, 1)
    assert shared.held < 1_000
    assert shared.has_room("the next", most=1_000, small=1, more=1)


def test_a_sender_may_have_a_little_while_there_is_any_left() -> None:
    shared = Shared()
    shared.take("greedy", 7)
    assert shared.has_room("small", most=10, small=3, more=3)
    assert not shared.has_room("small", most=10, small=3, more=4)
    assert not shared.has_room("greedy", most=10, small=3, more=1)
    shared.give_back("greedy", 7)
    assert shared.has_room("greedy", most=10, small=3, more=5)
    assert not shared.has_room("greedy", most=10, small=3, more=6)
