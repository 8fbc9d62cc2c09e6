"""Secrets that an instance generates at its first start."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def kept(path: Path, make: Callable[[], str]) -> str:
    """Return the text in `path`, created with `make` if the file is missing; only its owner can read it.

    Two processes that start at once agree on one secret: the hard link appears atomically, and the loser reads the
    winner's file.
    """
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            Path(path).hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            Path(temporary).unlink()
    return path.read_text().strip()


def replace(path: Path, text: str) -> None:
    """Replace the file atomically, readable only by its owner. A concurrent reader sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def own_directory(path: Path) -> None:
    """Create the instance's directory, or restrict an existing one to its owner."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        path.chmod(0o700)


def own_file(path: Path) -> None:
    """Create an empty file that only its owner can read, if it is missing, so that later content keeps the mode."""
    if not path.exists():
        if path.parent.is_dir() and os.access(path.parent, os.W_OK):
            path.touch(mode=0o600)
        return
    status = path.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        path.chmod(0o600)
