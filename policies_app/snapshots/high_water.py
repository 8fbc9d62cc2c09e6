"""Detects that the database was restored from a backup: routers then have a newer state than the database.

Each gateway stores the highest revision served of each environment in `var/served.json`, outside the database. An
environment whose epoch or revision is lower is withheld from routers: they would refuse the older revision anyway and
keep what they have. `manage.py post_restore` starts a new epoch.

It stays withheld until then. Once enough changes have followed the restore, its revision is as high as before, but
the same numbers stand for other contents: a router that asks for what changed since its own revision would be told
that it has everything. So the time at which the highest revision was made is stored, too, and must be the same.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings

from controlplane.audit.models import Head
from controlplane.core import secretfile
from policies_app.models import Revision
from policies_app.snapshots.cache import SnapshotHeader

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 2.0


class Mark(NamedTuple):
    """The newest snapshot served. Epochs start with their creation time, so marks sort."""

    epoch: str
    revision: int
    made_at: str = ""  # by the environment's history; empty: not known


def file() -> Path:
    return Path(settings.VAR_DIR) / "served.json"


class HighWater:
    """The marks of one process and of all processes that share its directory. Not thread-safe.

    The file groups them by database (identified by its audit chain's id, which a restore brings back), because a
    directory may be used with another database later.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._chain = ""
        self._changed = False
        self._written_at = 0.0

    def is_behind(self, header: SnapshotHeader) -> bool:
        """Return whether the database has, or had in this epoch, an older state than was served before."""
        self._read_once()
        mark = self._marks.get(header.name)
        if mark is None or header.epoch > mark.epoch:
            return False
        if (header.epoch, header.revision) < mark[:2]:
            return True
        return bool(mark.made_at) and made_at(header, mark.revision) != mark.made_at

    def note(self, headers: Iterable[SnapshotHeader]) -> None:
        """Record what is served. Writes at most every `WRITTEN_EVERY_S`; a failing disk stops nothing."""
        for header in headers:
            self._read_once()
            served = (header.epoch, header.revision)
            if served > self._marks.get(header.name, ("", -1))[:2]:
                self._marks[header.name] = Mark(*served, made_at(header, header.revision))
                self._changed = True
        if self._changed and self._chain and time.monotonic() - self._written_at >= WRITTEN_EVERY_S:
            self._write()

    def _read_once(self) -> None:
        if self._chain:
            return
        self._chain = Head.objects.values_list("chain", flat=True).first() or ""
        self._marks = _marks(_content(), self._chain)

    def _write(self) -> None:
        self._written_at = time.monotonic()
        content = _content()
        others = _marks(content, self._chain)  # the marks of other processes here, which may be ahead of ours
        merged = {name: max(mark, others.get(name, mark)) for name, mark in self._marks.items()}
        try:
            _replace(content | {self._chain: others | merged})
        except OSError as error:
            log.warning(
                "%s cannot be written (%s); a restore from a backup might not be noticed", file(), error
            )
            return
        self._changed = False


def made_at(header: SnapshotHeader, revision: int) -> str:
    """Return when a revision was made; empty if the history does not have it."""
    made = Revision.objects.filter(environment_id=header.pk, number=revision)
    at = made.values_list("at", flat=True).first()
    return "" if at is None else at.isoformat()


def forget(environments: Iterable[str]) -> None:
    """Remove these environments' marks from the file, because a new epoch has begun."""
    chain = Head.objects.values_list("chain", flat=True).first() or ""
    content = _content()
    gone = set(environments)
    _replace(content | {chain: {k: v for k, v in _marks(content, chain).items() if k not in gone}})


def _content() -> dict[str, Any]:
    try:
        content = json.loads(file().read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s); a restore from a backup might not be noticed", file(), error)
        return {}
    return content if isinstance(content, dict) else {}


def _marks(content: Mapping[str, Any], chain: str) -> dict[str, Mark]:
    marks = content.get(chain)
    if not isinstance(marks, dict):
        return {}
    return {
        str(name): Mark(*mark)
        for name, mark in marks.items()
        if isinstance(mark, list | tuple) and tuple(map(type, mark)) in ((str, int), (str, int, str))
    }


def _replace(content: Mapping[str, Any]) -> None:
    """Replace the file atomically: a process that is killed leaves the old one."""
    secretfile.replace(file(), json.dumps(content, indent=1, sort_keys=True))
