"""The logger `pointsman`, whose callers survive a failing handler or filter of the application.

A filter that adds the current request's id fails in the background thread, where there is no request. Its exception
would end the polling, or reach a request.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

__all__ = ["log"]

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class _Log(_Adapter):
    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Log the message, or nothing if a handler or filter raises."""
        with suppress(Exception):
            super().log(level, msg, *args, stacklevel=2, **options)  # 2: the line that speaks, not this one


log = _Log(logging.getLogger("pointsman"), {})
