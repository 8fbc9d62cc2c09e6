"""A reverse proxy that compresses responses itself and changes their ETags, like Apache's mod_deflate."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import httpx

_OF_EACH_HOP = frozenset(
    {"connection", "transfer-encoding", "content-length", "content-encoding", "date", "server"}
)


class CompressingProxy:
    """`with CompressingProxy(url) as proxy`: `proxy.url` leads to `url`; `statuses` are those of responses to GETs."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60)
        self.statuses: list[int] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._forward(b"")

            def do_POST(self) -> None:
                self._forward(self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *_: object) -> None: ...

            def _forward(self, body: bytes) -> None:
                asked = {k: v for k, v in self.headers.items() if k.lower() not in _OF_EACH_HOP | {"host"}}
                # The proxy compresses, so it requests the plain body.
                answer = proxy._client.request(
                    self.command, self.path, content=body, headers={**asked, "Accept-Encoding": "identity"}
                )
                if self.command == "GET":
                    proxy.statuses.append(answer.status_code)
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in _OF_EACH_HOP}
                content = answer.content
                if answer.status_code == 200 and "gzip" in asked.get("Accept-Encoding", ""):
                    content = gzip.compress(content)
                    kept["Content-Encoding"] = "gzip"
                    kept["etag"] = f'{kept["etag"][:-1]}-gzip"'
                self.send_response(answer.status_code)
                for name, value in kept.items():
                    self.send_header(name, value)
                if answer.status_code not in (204, 304):
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if answer.status_code not in (204, 304):
                    self.wfile.write(content)

        return Handler
