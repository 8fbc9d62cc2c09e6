"""Requests that offer another protocol, announce a body that never comes, or do not read the response.

They are sent to a whole server, and are variants of requests that were once misread or blocked all others.
"""

import json
import socket
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from django.db import transaction

from controlplane.access.actions import issue_key
from controlplane.audit import log
from controlplane.core.actors import SYSTEM
from tests.support.plane import Served, Server

UPGRADES = {
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    "TLS": "Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
}
PATHS = ("/console/login/", "/api/v1/teams", "/router/v1/snapshot", "/healthz")


@pytest.fixture
def server(served: Served) -> Iterator[Server]:
    with Server() as server:
        yield server


def told(server: Server, data: str | bytes, *, seconds: float = 20) -> bytes:
    """Send the data. Return everything received until the server closes the connection or sends no more."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as connection:
        connection.sendall(data.encode() if isinstance(data, str) else data)
        found = b""
        with suppress(OSError):
            while data := connection.recv(65_536):
                found += data
        return found


def test_protocol_upgrades_are_ignored_and_no_body_is_lost(server: Server, served: Served) -> None:
    _, key = issue_key("admin", "", "script", actor=SYSTEM, scopes=["admin"])
    for number, offer in enumerate(UPGRADES.values()):
        for path in PATHS:
            head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n"
            last = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            answers = told(server, head + last)
            assert answers.count(b"HTTP/1.1 ") == 2, (path, answers[:200])
            assert b"HTTP/1.1 101" not in answers
        body = json.dumps({"name": f"offered-{number}", "members": [], "reason": "x"})
        made = told(
            server,
            f"POST /api/v1/teams HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\n{offer}Content-Length: {len(body)}\r\n\r\n{body}{last}",
        )
        assert made.startswith(b"HTTP/1.1 201"), made[:300]


def test_invalid_requests_are_refused_and_others_still_answered(server: Server, served: Served) -> None:
    rest = "Host: localhost\r\nConnection: close\r\n\r\n"
    odd = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,
        f"CONNECT localhost:443 HTTP/1.1\r\n{rest}".encode(),
        f"OPTIONS * HTTP/1.1\r\n{rest}".encode(),
        f"GET localhost HTTP/1.1\r\n{rest}".encode(),
        f"GET //evil.example/console/ HTTP/1.1\r\n{rest}".encode(),
    ]
    for data in odd:
        answer = told(server, data)
        assert answer == b"" or 300 <= int(answer.split()[1]) < 500, (data[:40], answer[:200])
        assert b"evil.example" not in answer.partition(b"\r\n\r\n")[0]
    # The host of an absolute URL is never repeated in the response.
    for url in ("http://evil.example/console/", "http://evil.example/api/v1/schema"):
        answer = told(server, f"GET {url} HTTP/1.1\r\n{rest}")
        assert 200 <= int(answer.split()[1]) < 500
        assert b"evil.example" not in answer
    # A key in a trailer is not accepted.
    _, key = issue_key("admin", "", "script", actor=SYSTEM, scopes=["admin"])
    chunk = b'{"name":"t","members":[],"reason":"x"}'
    for path in ("/api/v1/teams", "/router/v1/outcomes"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += "Trailer: Authorization\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        body = b"%x\r\n%s\r\n0\r\nAuthorization: Bearer %s\r\n\r\n" % (len(chunk), chunk, key.encode())
        assert told(server, head.encode() + body).startswith(b"HTTP/1.1 401")
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_missing_bodies_and_unread_exports_delay_nobody(server: Server, served: Served) -> None:
    """More clients than threads: each announces a body that never comes, or requests an export and does not read it."""
    _, key = issue_key("admin", "", "script", actor=SYSTEM, scopes=["admin"])
    for _ in range(40):
        with transaction.atomic():
            log.record(actor=SYSTEM, action="a.b", target=("x", "1"), evidence={"long": "x" * 100_000})
    bearer = f"Host: localhost\r\nAuthorization: Bearer {key}\r\n"
    promise = f"POST /api/v1/teams HTTP/1.1\r\n{bearer}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    wanted = f"GET /api/v1/audit/export?format=jsonl HTTP/1.1\r\n{bearer}\r\n"
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(24)]
    try:
        for number, connection in enumerate(silent):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            connection.sendall((promise if number % 2 else wanted * 2).encode())
        with httpx.Client(timeout=20, headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.get(f"{server.url}/healthz").status_code == 200
            assert client.get(f"{server.url}/api/v1/teams").status_code == 200
            whole = client.get(f"{server.url}/api/v1/audit/export?format=jsonl")
            assert len(whole.content) > 4_000_000
    finally:
        for connection in silent:
            connection.close()
