"""The HTTP server of the control plane for tests: threads, keep-alive, gzip; stopping it closes all connections."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pointsman.reporting.unique_names import DuplicateName, unique

__all__ = ["FakeServer", "Reply", "Request", "problem"]


@dataclass(frozen=True)
class Request:
    """A request from a router."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Message
    body: bytes

    @property
    def since(self) -> int | None:
        return int(self.query["since"][0]) if "since" in self.query else None

    @property
    def workloads(self) -> list[str]:
        return self.query.get("workload", [])

    @property
    def wait_s(self) -> float:
        found = re.search(r"wait=(\d+)", self.headers.get("Prefer", ""))
        return float(found.group(1)) if found else 0.0

    def json(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self.body, object_pairs_hook=unique)
        return data


@dataclass(frozen=True)
class Reply:
    """A response to a router. `raw`: send the body unchanged, even if gzip was accepted."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False


def problem(status: int, code: str, **more: Any) -> Reply:
    """Return an RFC 9457 problem."""
    body = json.dumps({"title": code, "status": status, "code": code, **more}).encode()
    return Reply(status, body, {"Content-Type": "application/problem+json"})


class FakeServer:
    """Serves `answer` on 127.0.0.1; can be stopped and restarted on the same port."""

    def __init__(self, answer: Callable[[Request], Reply], port: int = 0) -> None:
        self._answer = answer
        self._port = port
        self._server: _Server | None = None

    @property
    def running(self) -> bool:
        return self._server is not None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = _Server(self._port, self._answer)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, port: int, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def cut(self) -> None:
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: closed connections are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._serve()

    def do_POST(self) -> None:  # noqa: N802
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        request = Request(self.command, parts.path, parse_qs(parts.query), self.headers, body)
        try:
            reply = self.server.answer(request)
        except DuplicateName as error:
            reply = problem(400, "duplicate_key", detail=str(error))
        except (ValueError, KeyError, TypeError) as error:
            reply = problem(400, "malformed_body", detail=f"{type(error).__name__}: {error}")
        self._send(request, reply)

    def _send(self, request: Request, reply: Reply) -> None:
        body, headers = reply.body, dict(reply.headers)
        if body and not reply.raw and "gzip" in request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if reply.status not in (204, 304):
            self.wfile.write(body)
