"""The destination of log lines in tests."""

import logging
import sys
from typing import TextIO


class CurrentStderr(logging.StreamHandler[TextIO]):
    """Writes to the current `sys.stderr`.

    A StreamHandler keeps the one that it was created with. That is pytest's, which is closed after the last test, while
    threads may still log.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
