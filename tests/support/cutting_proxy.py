"""A reverse proxy with a short time limit: it answers 504, or resets, if a response takes too long."""

import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_GATEWAY_TIMEOUT = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class CuttingProxy:
    """`with CuttingProxy(url, after_s=3, how="504") as proxy`: forwards to `url`, and cuts what takes longer.

    how   `504`: its own response; `reset`: a reset without a response
    """

    def __init__(self, url: str, *, after_s: float, how: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "", parts.port or 80)
        self._after_s, self._how = after_s, how
        self._cuts = threading.Semaphore(0)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def wait_for_cuts(self, number: int, timeout: float = 30.0) -> bool:
        """Return whether this many were cut in time."""
        deadline = time.monotonic() + timeout
        return all(self._cuts.acquire(timeout=max(0.0, deadline - time.monotonic())) for _ in range(number))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        """Serve one connection, request after request. Requests and responses are small here, so each is read whole."""
        try:
            with client, socket.create_connection(self._target) as server:
                while request := client.recv(65_536):
                    server.sendall(request)
                    server.settimeout(self._after_s)
                    try:
                        answer = server.recv(65_536)
                    except TimeoutError:
                        self._cut(client)
                        return
                    while answer:
                        client.sendall(answer)
                        server.settimeout(0.05)
                        try:
                            answer = server.recv(65_536)
                        except TimeoutError:
                            break
        except OSError:
            return

    def _cut(self, client: socket.socket) -> None:
        if self._how == "504":
            client.sendall(_GATEWAY_TIMEOUT)
        else:  # SO_LINGER of 0 seconds: RST instead of FIN
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._cuts.release()
