"""A mail server on this machine that keeps what it gets, and misbehaves as a test says."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self


def answer(line: "Conversation", text: bytes) -> None:
    line.say(text)


def drip(line: "Conversation", text: bytes) -> None:
    """Send a byte now and then, so that no single read times out."""
    line.send(text[:3] + b"-")
    for _ in range(300):
        time.sleep(0.1)
        line.send(b"x")


def hang(line: "Conversation", text: bytes) -> None:
    line.file.read()  # until the other side ends the connection


def hang_up(line: "Conversation", text: bytes) -> None:
    raise ConnectionAbortedError


def after(seconds: float) -> Callable[["Conversation", bytes], None]:
    def late(line: "Conversation", text: bytes) -> None:
        time.sleep(seconds)
        line.say(text)

    return late


class Conversation:
    def __init__(self, connection: socket.socket) -> None:
        self.file: Any = connection.makefile("rwb")

    def say(self, text: bytes) -> None:
        self.send(text + b"\r\n")

    def send(self, text: bytes) -> None:
        self.file.write(text)
        self.file.flush()


class MailServer:
    """`answers` holds how it answers to a command (`DATA`), `greeting` and `message`; it does the rest as it should."""

    def __init__(self, **answers: Callable[[Conversation, bytes], None]) -> None:
        self.answers = answers
        self.got: list[bytes] = []

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            self._talk(Conversation(connection))

    def _talk(self, line: Conversation) -> None:
        self._reply(line, "greeting", b"220 ready")
        while command := line.file.readline().strip().upper():
            name = command.split()[0].decode()
            self._reply(line, name, {"DATA": b"354 go on", "QUIT": b"221 bye"}.get(name, b"250 ok"))
            if name == "DATA":
                self.got.append(b"".join(iter(line.file.readline, b".\r\n")))
                self._reply(line, "message", b"250 queued")

    def _reply(self, line: Conversation, to: str, text: bytes) -> None:
        self.answers.get(to, answer)(line, text)
