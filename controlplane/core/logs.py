"""JSON log lines, one object per line, linked to audit entries by `request_id`."""

import logging
import re
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from controlplane.core import context

log = logging.getLogger(__name__)
# An invitation's link is all that its account needs. Django logs the address of each request that it refuses or that
# fails, as when the database is read-only.
_LINK = re.compile(r"(/console/invitation/)[^/?\s\"'\\]+")


def masked(line: str) -> str:
    """Hide what would let a reader of the log in."""
    return _LINK.sub(r"\1...", line)


class TextLines(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("{asctime} {levelname:7} {name}: {message}", style="{")

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


class JsonLines(JsonFormatter):
    """Formats time, level, logger, message, origin and any `extra` values; a traceback goes into `error`."""

    def __init__(self) -> None:
        super().__init__("%(message)s", rename_fields={"exc_info": "error"}, json_default=str)

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        origin = context.current()
        log_data |= {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({"request_id": origin.request_id} if origin.request_id else {}),
            **({"source": origin.source} if origin.source else {}),
        }
        super().add_fields(log_data, record, message_dict)


def catch_the_rest() -> None:
    """Send warnings and uncaught exceptions through the log too. Otherwise they would print plain lines between the
    JSON."""
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
    name = failed.thread.name if failed.thread else "?"
    log.critical("the thread %s failed", name, exc_info=failed.exc_value)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("the process failed", exc_info=(kind, error, trace))
