"""Append lines to a file of bounded size, which several processes may share.

Each batch of lines is one write under a lock, after checking the end of the file: a line truncated when another
process was killed stays one broken line, and does not damage the next.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: only one process per file
    fcntl = None  # type: ignore[assignment]

__all__ = ["LogFiles"]

_MOST_ROTATIONS = 5  # by other processes between the check and the lock


class LogFiles:
    """`tasks.jsonl` and at most `older` older files `tasks.1.jsonl`, `tasks.2.jsonl`, … in the same folder.

    max_bytes  of one file; the next line starts a new one
    Files are readable only by their owner (0600). Not thread-safe.
    """

    def __init__(self, path: Path, max_bytes: int, older: int) -> None:
        self.path, self.max_bytes, self.older = path, max_bytes, older
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Append whole lines. After an OSError none of them count as written."""
        for _ in range(_MOST_ROTATIONS):
            descriptor = self._opened()
            _lock(descriptor)
            try:
                if not self._is_current(descriptor):
                    continue
                size = os.fstat(descriptor).st_size
                if size and size + len(lines) > self.max_bytes:
                    self._rotate()
                    continue
                _write(descriptor, size, lines)
                return
            finally:
                _unlock(descriptor)
                if not self._is_current(descriptor):
                    self.close()
        raise OSError(errno.EAGAIN, "other processes keep moving the file away", str(self.path))

    def close(self) -> None:
        """Close the file. In a forked child, the parent's file stays open."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _opened(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Non-blocking, so that a pipe with this name is detected instead of blocking.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self.path, flags | getattr(os, "O_NONBLOCK", 0), 0o600)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.EINVAL, "not a regular file", str(self.path))
            self._descriptor = descriptor
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        """Return whether the path still refers to this file; another process or logrotate may have moved it."""
        try:
            named, ours = self.path.stat(), os.fstat(descriptor)
        except OSError:
            return False
        return (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)

    def _rotate(self) -> None:
        """Rename each file to the next older name and remove the oldest. Requires the lock of the newest file."""
        if not self.older:
            self.path.unlink()
            return
        for age in range(self.older - 1, 0, -1):
            with suppress(FileNotFoundError):
                self._aged(age).replace(self._aged(age + 1))
        self.path.replace(self._aged(1))

    def _aged(self, age: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{age}{self.path.suffix}")


def _write(descriptor: int, size: int, lines: bytes) -> None:
    torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
    content = b"\n" + lines if torn else lines
    try:
        written = os.write(descriptor, content)
        if written < len(content):
            raise OSError(errno.ENOSPC, "the disk accepted only part of the lines")
    except OSError:
        # None of them count as written, so remove all: otherwise a retry would duplicate them.
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise


def _lock(descriptor: int) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _unlock(descriptor: int) -> None:
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
