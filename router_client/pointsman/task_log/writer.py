"""TaskLog: lines wait in memory until a separate thread has written them, so requests never wait for the disk."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pointsman.errors import ConfigurationError
from pointsman.given import names_in
from pointsman.logs import log
from pointsman.reporting.metrics import Counter
from pointsman.task_log.files import LogFiles

__all__ = ["TaskLog"]

_EVERY_S = 0.5
_SLOWEST_S = 30.0  # between attempts while writing fails
_AT_ONCE = 500  # lines per write
_LEAST_BYTES = 4_096
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class TaskLog:
    """A file with a line of figures for each finished task: `Router(task_log=TaskLog("tasks.jsonl"))`.

    path        the newest file; older ones are in the same folder as `tasks.1.jsonl`, `tasks.2.jsonl`, …
    max_bytes   of one file
    older       number of older files to keep: in total at most (older + 1) × max_bytes
    attributes  request attributes whose strings may be written because they come from a short list (a product, a
                region); numbers and booleans are always written, other strings never
    secret      makes the units' pseudonyms unguessable; must be equal in all processes whose logs are read together
    waiting     maximum number of lines in memory; further lines are dropped and counted

    Raises ConfigurationError for invalid sizes. Several processes may share a path.
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
                f"a task log requires max_bytes >= {_LEAST_BYTES}, older >= 0, waiting >= 1 and a secret of at most 64 "
                f"bytes; got max_bytes={max_bytes!r}, older={older!r}, waiting={waiting!r}, {len(secret)} bytes"
            )
        self.path = Path(path)
        self.attributes, self.secret = frozenset(names_in("attributes", attributes)), secret
        self._limit = waiting
        self._files = LogFiles(self.path, max_bytes, older)
        self.restart()

    def restart(self) -> None:
        """Start empty in a forked child; the parent writes its own lines."""
        self._files.close()
        self._lines: deque[bytes] = deque()
        self._dropped = Counter()
        self._stopped, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self.written = 0
        self.problem: str | None = None

    def start(self) -> None:
        """Start the writing thread, a daemon that does not keep the process alive."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="pointsman-task-log", daemon=True)
            self._thread.start()

    def put(self, line: Mapping[str, Any]) -> None:
        """Queue a line. Never waits for the disk; drops and counts it if there is no room. Raises if it is not JSON."""
        if len(self._lines) >= self._limit:
            self._dropped.hit()
            return
        self._lines.append(_encode(line).encode())
        if len(self._lines) * 2 > self._limit:
            self._wake.set()

    def drop(self) -> None:
        """Count a line that could not be created."""
        self._dropped.hit()

    def close(self, timeout: float) -> int:
        """Write the waiting lines for at most `timeout` seconds; return the number of lines dropped."""
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
        """Lines dropped for lack of room, not created, or unwritten at the end."""
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
            except Exception as error:  # The loop continues whatever happens, because the disk may recover.
                self._say(error)
                wait_s = min(_SLOWEST_S, wait_s * 2)
                # A full queue wakes the thread at each line; while writing fails it must not spin.
                self._stopped.wait(wait_s)
        if self._lines:
            log.warning("the task log was closed with %d lines not written", len(self._lines))
            while self._lines:
                self._lines.popleft()
                self._dropped.hit()
        self._files.close()

    def _write_some(self) -> None:
        """Write some lines. They are removed from memory only after they are written, and only here."""
        batch, size = [self._lines[0]], len(self._lines[0])
        for at in range(1, min(_AT_ONCE, len(self._lines))):
            size += len(self._lines[at]) + 1
            if size > self._files.max_bytes // 4:  # a single write must not fill a file
                break
            batch.append(self._lines[at])
        self._files.append(b"\n".join(batch) + b"\n")
        for _ in batch:
            self._lines.popleft()
        self.written += len(batch)

    def _say(self, error: Exception) -> None:
        self._files.close()
        if self.problem is None:
            log.warning(
                "the task log can't be written; lines wait in memory and are dropped if it is full: %s",
                error,
            )
        self.problem = f"{type(error).__name__}: {error}"
