"""A foreign process with its children: PostgreSQL."""

import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


class Family:
    """The process `pid` and its direct children, whenever they start."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def pin(self, core: int) -> None:
        """Pin it now, including future children."""
        for pid, _ in self._members():
            os.sched_setaffinity(pid, {core})

    def cpu_s(self) -> float:
        """Return processor seconds, accurate to 10 ms, including those of ended children."""
        total = 0
        for pid, fields in self._members():
            total += sum(map(int, fields[11:15] if pid == self._pid else fields[11:13]))
        return total / _TICKS

    def _members(self) -> Iterator[tuple[int, list[str]]]:
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has exited
            pid = int(path.parent.name)
            if pid == self._pid or int(fields[1]) == self._pid:
                yield pid, fields
