"""A router's disk that can be full: writes are refused, and existing files can be read."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pointsman.reporting.batch import Batch
from pointsman.reporting.spool import Spool
from pointsman.sync.store import DiskStore, Received


class Disk:
    """`store` and `spool` belong to one router."""

    def __init__(self, store: Path, spool: Path) -> None:
        self.full = False
        self.store, self.spool = _Store(self, store), _Spool(self, spool)

    def write(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class _Store(DiskStore):
    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(path)
        self._disk = disk

    def save(self, chain: Sequence[Received]) -> None:
        self._disk.write()
        super().save(chain)


class _Spool(Spool):
    def __init__(self, disk: Disk, path: Path) -> None:
        super().__init__(path)
        self._disk = disk

    def put(self, message: Batch) -> list[Batch]:
        self._disk.write()
        return super().put(message)
