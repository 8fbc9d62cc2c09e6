"""Run what may fail without stopping an action: display, and single parts of the evidence.

Intervals, outlooks and wording are for people: if one fails, the page says less and the log says why. A part of the
evidence that fails counts as nothing; leaving out a part of an e-value only lowers it. Failures are never silent:
they are logged as errors, and `failed` parts hold the rollout (`evaluation_failed`).
"""

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")


def for_display(what: str, make: Callable[[], T], instead: T) -> T:
    """Return `make()`, or `instead` if it raises. Nothing that is only displayed may stop an action."""
    try:
        return make()
    except Exception:
        logger.exception("%s could not be computed for display", what)
        return instead


def or_failed(what: str, make: Callable[[], T], instead: Callable[[str], T]) -> T:
    """Return `make()`, or `instead(name of the error)` if it raises."""
    try:
        return make()
    except Exception as error:
        logger.exception("%s could not be judged", what)
        return instead(type(error).__name__)


class Failures(dict[str, str]):
    """What raised while windows were added: {name: the error's name}. From then on its sums lack a window."""

    def guard(self, what: str, make: Callable[[], T], instead: T) -> T:
        """Return `make()`, or `instead` if it raises now or did for an earlier window."""
        if what in self:
            return instead
        try:
            return make()
        except Exception as error:
            logger.exception("%s could not take in a window", what)
            self[what] = type(error).__name__
            return instead
