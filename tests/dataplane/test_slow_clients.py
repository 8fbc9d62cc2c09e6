"""Clients that send or read a byte a second cost the others nothing."""

import socket
from contextlib import suppress

import httpx
import pytest

from controlplane.server import bodies
from tests.support.plane import PATIENCE_S, Plane, Served, Server

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
