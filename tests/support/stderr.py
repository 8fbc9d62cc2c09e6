"""Where log lines go in tests."""

import logging
import sys
from typing import TextIO


class CurrentStderr(logging.StreamHandler[TextIO]):
    """Writes to the `sys.stderr` of the moment.

    A StreamHandler keeps the one that it was made with: pytest's, which is closed when the last test has ended, while
    threads may still have something to say.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr
