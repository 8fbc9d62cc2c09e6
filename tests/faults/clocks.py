"""A separate clock for each process, which can be set wrong while the process runs.

`clock.c` is built at the start of a run. Without a C compiler, the runs leave out wrong clocks.
"""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class Clock:
    """Start the process with `environment`. `step` takes effect immediately, also in its children."""

    def __init__(self, library: Path, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._ahead = mmap.mmap(opened.fileno(), 8)
        self.environment = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(file)}

    def step(self, seconds: int) -> None:
        """Set the clock ahead of the machine's by this many seconds; behind it if negative."""
        self._ahead[:] = struct.pack("=q", seconds)


class Clocks:
    """Creates clocks with their files in `home`."""

    def __init__(self, home: Path, compiler: str) -> None:
        self._home, self._library = home, home / "clock.so"
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(SOURCE)], check=True
        )

    def clock(self, name: str) -> Clock:
        return Clock(self._library, self._home / f"{name}.clock")


def clocks(home: Path) -> Clocks | None:
    """Return None if there is no compiler or no `LD_PRELOAD`."""
    compiler = shutil.which("cc")
    return Clocks(home, compiler) if compiler and hasattr(mmap, "MAP_SHARED") else None
