"""Log lines as JSON, one object a line, joined to audit entries by `request_id`."""

import json
import logging
from datetime import UTC, datetime

from controlplane.core import context

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message; where it came from; whatever was given as `extra`; the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        origin = context.current()
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": origin.request_id or None,
            "source": origin.source or None,
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
            "error": self.formatException(record.exc_info) if record.exc_info else None,
        }
        return json.dumps({name: value for name, value in line.items() if value is not None}, default=str)
