"""What may fail without stopping an action: display, and one part of the evidence among others.

Intervals, outlooks and wording are for people: where one can't be made, the page says less and the log says why. A
part of the evidence that can't be computed counts nothing; leaving a part of an e-value out only lowers it. Neither is
ever silent: both are logged as errors, and `failed` parts hold the rollout (`evaluation_failed`).
"""

import logging
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)
T = TypeVar("T")


def for_display(what: str, make: Callable[[], T], instead: T) -> T:
    """What `make` gives, or `instead` where it raises: nothing that is only shown stops an action."""
    try:
        return make()
    except Exception:
        logger.exception("%s could not be computed for display", what)
        return instead


def or_failed(what: str, make: Callable[[], T], instead: Callable[[str], T]) -> T:
    """What `make` gives, or what `instead` makes of the error's name."""
    try:
        return make()
    except Exception as error:
        logger.exception("%s could not be judged", what)
        return instead(type(error).__name__)


class Failures(dict[str, str]):
    """What raised while windows were taken in: {its name: the error's name}. From then on its sums lack a window."""

    def guard(self, what: str, make: Callable[[], T], instead: T) -> T:
        """What `make` gives; `instead` where it raises, now or for an earlier window."""
        if what in self:
            return instead
        try:
            return make()
        except Exception as error:
            logger.exception("%s could not take in a window", what)
            self[what] = type(error).__name__
            return instead
