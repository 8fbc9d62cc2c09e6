"""Outcomes and feedback on disk: one file per batch, named by its id.

Sending a batch twice (after a crash, or from two processes that share the directory) is harmless: the control
plane counts a batch id once, and keeps one feedback per decision and kind. Beyond `max_bytes` the oldest
files are removed, and their contents are counted as dropped.

    <batch id>.json       {"batch_id": …, "router": …, "buckets": […]}     the request's body, as it is sent
    <id>.feedback         {"feedback": […]}                                likewise
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pointsman.reporting.batch import Batch, FeedbackBatch, Message, tasks_of
from pointsman.sync.files import write_whole
from pointsman.sync.headers import fits_header

# A process sends the batches that it wrote. Only files that have not been touched for a while belong to a
# process that died, and are taken over.
ORPHANED_AFTER_S = 60.0


P = TypeVar("P", bound=Message)


class SpoolFiles(Generic[P]):
    """The files of one kind in a directory.

    max_bytes         of all of them together
    orphaned_after_s  a file that was not touched for this long is taken over
    """

    suffix: ClassVar[str]

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 64 << 20,
        orphaned_after_s: float = ORPHANED_AFTER_S,
    ) -> None:
        self.path = Path(path)
        self.max_bytes = max_bytes
        self.orphaned_after_s = orphaned_after_s

    def put(self, message: P) -> list[P]:
        """Write a file; return the oldest ones, dropped to make room. Raises OSError if the disk is full."""
        write_whole(self._file(message.id), message.body)
        return list(self._make_room(keep=message.id))

    def remove(self, message_id: str) -> None:
        """Remove a batch that was accepted or given up."""
        with suppress(OSError):
            self._file(message_id).unlink()

    def __contains__(self, message_id: str) -> bool:
        return self._file(message_id).exists()

    def orphans(self, known: set[str]) -> Iterator[P]:
        """Return batches left by another process, oldest first. Damaged files are removed, foreign files left alone."""
        newest = time.time() - self.orphaned_after_s
        for file, changed, _ in self._files():
            if file.stem not in known and changed <= newest and (message := self._read(file)):
                yield message

    def _make_room(self, keep: str) -> Iterator[P]:
        files = self._files()
        total = sum(size for _, _, size in files)
        for file, _, size in files:
            if total <= self.max_bytes:
                return
            if file.stem != keep:
                total -= size
                if message := self._read(file):
                    self.remove(message.id)
                    yield message

    def _files(self) -> list[tuple[Path, float, int]]:
        """Return (file, modification time, bytes), oldest first. A file may vanish if another process sends it."""
        found = []
        with suppress(OSError):
            for file in self.path.glob(f"*{self.suffix}"):
                # The directory may contain other files: never remove files that this module did not name.
                with suppress(OSError, ValueError):
                    if str(uuid.UUID(file.stem)) != file.stem:
                        continue
                    stat = file.stat()
                    found.append((file, stat.st_mtime, stat.st_size))
        return sorted(found, key=lambda entry: (entry[1], entry[0].name))

    def _read(self, file: Path) -> P | None:
        try:
            return self._parse(file.stem, file.read_bytes())
        except OSError:
            return None  # Gone, or temporarily unreadable (for example, no file descriptors left): do not remove it.
        except (ValueError, KeyError, TypeError, RecursionError):
            with suppress(OSError):
                file.unlink()
            return None

    def _parse(self, message_id: str, body: bytes) -> P:
        raise NotImplementedError

    def _file(self, message_id: str) -> Path:
        return self.path / f"{message_id}{self.suffix}"


class Spool(SpoolFiles[Batch]):
    """A router's spool directory, `Router(spool=Spool(path, max_bytes=…))`. Its own methods handle outcome batches."""

    suffix = ".json"

    def feedback(self) -> "FeedbackSpool":
        """The feedback in the same directory."""
        limit = max(self.max_bytes // 8, 1)
        return FeedbackSpool(self.path, max_bytes=limit, orphaned_after_s=self.orphaned_after_s)

    def _parse(self, message_id: str, body: bytes) -> Batch:
        data = json.loads(body)
        if data["batch_id"] != message_id:
            raise ValueError("the name and the id differ")
        if not fits_header(data["router"]):
            raise ValueError(
                "not a valid router name: it does not fit a header, and the batch would block the queue"
            )
        return Batch(message_id, data["router"], body, tasks_of(data["buckets"]))


class FeedbackSpool(SpoolFiles[FeedbackBatch]):
    """Batches of feedback in a spool directory."""

    suffix = ".feedback"

    def _parse(self, message_id: str, body: bytes) -> FeedbackBatch:
        return FeedbackBatch(message_id, body, len(json.loads(body)["feedback"]))
