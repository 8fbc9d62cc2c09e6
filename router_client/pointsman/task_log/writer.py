"""TaskLog: lines wait in memory until a thread of their own has written them. A request never waits for the disk."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pointsman.errors import ConfigurationError
from pointsman.reporting.metrics import Counter
from pointsman.task_log.files import LogFiles

__all__ = ["TaskLog"]

log = logging.getLogger("pointsman")

_EVERY_S = 0.5
_SLOWEST_S = 30.0  # between tries while the disk refuses
_AT_ONCE = 500  # lines a write
_LEAST_BYTES = 4_096
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class TaskLog:
    """Where a router keeps a line of figures for each finished task: `Router(task_log=TaskLog("tasks.jsonl"))`.

    path        the newest file; older ones stand beside it as `tasks.1.jsonl`, `tasks.2.jsonl`, …
    max_bytes   of one file
    older       how many older ones are kept: together at most (older + 1) × max_bytes
    attributes  request attributes whose words may be written, because they come from a short list (a product, a
                region); numbers and true/false always are, other words never
    secret      makes the units' pseudonyms impossible to guess; the same in every process whose logs are read together
    waiting     lines in memory; what finds no room is dropped and counted, and the request goes on

    Raises ConfigurationError for sizes that cannot work. Several processes may share a path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        older: int = 3,
        attributes: Iterable[str] = (),
        secret: bytes = b"",
        waiting: int = 10_000,
    ) -> None:
        if max_bytes < _LEAST_BYTES or older < 0 or waiting < 1 or len(secret) > 64:
            raise ConfigurationError(
                f"a task log takes max_bytes from {_LEAST_BYTES} up, older from 0, waiting from 1, a secret of at most "
                f"64 bytes; not {max_bytes!r}, {older!r}, {waiting!r}, {len(secret)} bytes"
            )
        self.path = Path(path)
        self.attributes, self.secret = frozenset(attributes), secret
        self._limit = waiting
        self._files = LogFiles(self.path, max_bytes, older)
        self.restart()

    def restart(self) -> None:
        """Begin anew, empty: a forked child's parent writes what it was given."""
        self._files.close()
        self._lines: deque[bytes] = deque()
        self._dropped = Counter()
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.written = 0
        self.problem: str | None = None

    def start(self) -> None:
        """Start the thread that writes. A daemon: it keeps no process from ending."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pointsman-task-log", daemon=True)
            self._thread.start()

    def put(self, line: Mapping[str, Any]) -> None:
        """Give it a line. Never waits for the disk; drops and counts what finds no room. Raises for what is no JSON."""
        if len(self._lines) >= self._limit:
            self._dropped.hit()
            return
        self._lines.append(_encode(line).encode())
        if len(self._lines) * 2 > self._limit:
            self._wake.set()

    def drop(self) -> None:
        """A line that could not even be made."""
        self._dropped.hit()

    def close(self, timeout: float) -> int:
        """Write what waits, for at most `timeout` seconds; returns how many lines were left and dropped."""
        self._stopped.set()
        self._wake.set()
        if self._lines:
            self.start()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                left = len(self._lines)
                for _ in range(left):
                    self._dropped.hit()
                return left
        return 0

    @property
    def waiting(self) -> int:
        """Lines not yet written."""
        return len(self._lines)

    @property
    def dropped(self) -> int:
        """Lines that found no room, could not be made, or were left at the end."""
        return self._dropped.value

    def _work(self) -> None:
        wait_s, ends = _EVERY_S, False
        while not ends:
            self._wake.wait(wait_s)
            self._wake.clear()
            ends = self._stopped.is_set()
            try:
                while self._lines:
                    self._write_some()
                wait_s, self.problem = _EVERY_S, None
            except Exception as error:  # A thread's loop goes on whatever happens: the disk may come back.
                self._say(error)
                wait_s = min(_SLOWEST_S, wait_s * 2)
                # A full queue wakes the thread at each line: while the disk refuses it must not spin.
                self._stopped.wait(wait_s)
        if self._lines:
            log.warning("the task log was closed with %d lines not written", len(self._lines))
            while self._lines:
                self._lines.popleft()
                self._dropped.hit()
        self._files.close()

    def _write_some(self) -> None:
        """Lines leave memory only when they are written; nobody else takes any away."""
        batch, size = [self._lines[0]], len(self._lines[0])
        for at in range(1, min(_AT_ONCE, len(self._lines))):
            size += len(self._lines[at]) + 1
            if size > self._files.max_bytes // 4:  # no write may fill a file by itself
                break
            batch.append(self._lines[at])
        self._files.append(b"\n".join(batch) + b"\n")
        for _ in batch:
            self._lines.popleft()
        self.written += len(batch)

    def _say(self, error: Exception) -> None:
        self._files.close()
        if self.problem is None:
            log.warning("the task log can't be written; its lines wait, then are dropped: %s", error)
        self.problem = f"{type(error).__name__}: {error}"
