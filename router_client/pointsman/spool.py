"""Outcome batches on disk, one file each, named by the batch's id.

A batch keeps its id on disk, so sending it twice (after a crash, or from two processes that share the
directory) is harmless: the control plane counts a batch id once. Bounded: beyond `max_bytes` the oldest
files go, and what they held is counted as dropped.

    <batch id>.json     {"batch_id": …, "router": …, "buckets": […]}     the request's body, as it is sent
"""

import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pointsman.batch import Batch, tasks_of
from pointsman.store import write_whole

# A process writes its own batches and sends them itself. Only files that nobody has touched for a while
# are somebody's who died, and are taken over.
ORPHANED_AFTER_S = 60.0


class Spool:
    """A directory of batches that wait to be sent.

    max_bytes         of all files together
    orphaned_after_s  a file that nobody has touched for so long is taken over
    """

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

    def put(self, batch: Batch) -> list[Batch]:
        """Write a batch; raises OSError when the disk refuses. Returns the oldest ones, dropped for room."""
        write_whole(self._file(batch.id), batch.body)
        return list(self._make_room(keep=batch.id))

    def remove(self, batch_id: str) -> None:
        """The batch was accepted or given up."""
        with suppress(OSError):
            self._file(batch_id).unlink()

    def __contains__(self, batch_id: str) -> bool:
        return self._file(batch_id).exists()

    def orphans(self, known: set[str]) -> Iterator[Batch]:
        """Batches that another process left behind, oldest first; damaged files are removed."""
        newest = time.time() - self.orphaned_after_s
        for file, changed, _ in self._files():
            if file.stem not in known and changed <= newest and (batch := self._read(file)):
                yield batch

    def _make_room(self, keep: str) -> Iterator[Batch]:
        files = self._files()
        total = sum(size for _, _, size in files)
        for file, _, size in files:
            if total <= self.max_bytes:
                return
            if file.stem != keep:
                total -= size
                if batch := self._read(file):
                    self.remove(batch.id)
                    yield batch

    def _files(self) -> list[tuple[Path, float, int]]:
        """(file, changed at, bytes), oldest first. A file may vanish meanwhile: another process sent it."""
        found = []
        with suppress(OSError):
            for file in self.path.glob("*.json"):
                with suppress(OSError):
                    stat = file.stat()
                    found.append((file, stat.st_mtime, stat.st_size))
        return sorted(found, key=lambda entry: (entry[1], entry[0].name))

    def _read(self, file: Path) -> Batch | None:
        try:
            body = file.read_bytes()
            data = json.loads(body)
            if data["batch_id"] != file.stem or str(uuid.UUID(file.stem)) != file.stem:
                raise ValueError("the name and the id differ")
            return Batch(data["batch_id"], data["router"], body, tasks_of(data["buckets"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            with suppress(OSError):
                file.unlink()
            return None

    def _file(self, batch_id: str) -> Path:
        return self.path / f"{batch_id}.json"
