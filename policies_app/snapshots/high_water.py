"""Notices that the database was restored from a backup: what routers have is newer than what it holds.

Each gateway keeps the highest revision that it has served of each environment in `var/served.json`, beside the
database and not in it. An environment whose epoch or revision lies below that is withheld from routers, which would
refuse the older revision anyway and go on with what they have. `manage.py post_restore` begins a new epoch.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

from controlplane.audit.models import Head
from controlplane.core import secretfile
from policies_app.snapshots.cache import SnapshotHeader

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 2.0
Mark = tuple[str, int]  # epoch and revision; epochs begin with the time that made them, so they sort


def file() -> Path:
    return Path(settings.VAR_DIR) / "served.json"


class HighWater:
    """The marks of one process, and of all processes that share its directory. For one thread.

    The file holds them by database (its audit chain's id, which a restore brings back): a directory may serve one
    database today and another one tomorrow.
    """

    def __init__(self) -> None:
        self._marks: dict[str, Mark] = {}
        self._chain = ""
        self._changed = False
        self._written_at = 0.0

    def is_behind(self, header: SnapshotHeader) -> bool:
        """Whether the database holds an older state of the environment than was served before."""
        self._read_once()
        mark = self._marks.get(header.name)
        return mark is not None and (header.epoch, header.revision) < mark

    def note(self, headers: Iterable[SnapshotHeader]) -> None:
        """These are served. Written at most every `WRITTEN_EVERY_S`; a disk that refuses stops nothing."""
        for header in headers:
            self._read_once()
            mark = (header.epoch, header.revision)
            if mark > self._marks.get(header.name, ("", -1)):
                self._marks[header.name] = mark
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
        others = _marks(content, self._chain)  # of the other processes here, which may be ahead of this one
        merged = {name: max(mark, others.get(name, mark)) for name, mark in self._marks.items()}
        try:
            _replace(content | {self._chain: others | merged})
        except OSError as error:
            log.warning("%s cannot be written (%s); a restore might not be noticed", file(), error)
            return
        self._changed = False


def forget(environments: Iterable[str]) -> None:
    """Take these environments' marks out of the file: a new epoch has begun."""
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
        log.warning("%s cannot be read (%s); a restore from a backup would not be noticed", file(), error)
        return {}
    return content if isinstance(content, dict) else {}


def _marks(content: Mapping[str, Any], chain: str) -> dict[str, Mark]:
    marks = content.get(chain)
    if not isinstance(marks, dict):
        return {}
    return {
        str(name): (mark[0], mark[1])
        for name, mark in marks.items()
        if isinstance(mark, list | tuple) and [type(part) for part in mark] == [str, int]
    }


def _replace(content: Mapping[str, Any]) -> None:
    """Whole or not at all: a process that is killed leaves the old file."""
    secretfile.replace(file(), json.dumps(content, indent=1, sort_keys=True))
