"""Reset times in the future, left by a clock that was ahead, to now.

Otherwise a server clock that was a day ahead would leave a rollback open, a stage unfinished and the sweep idle until
the next day.
"""

import logging
from datetime import datetime

from policies_app.fleet.listening import SKEW
from rollout_app.models import Rollout

logger = logging.getLogger(__name__)

_TIMES = ("started_at", "stage_entered_at", "paused_at", "rolling_back_at", "evaluated_at")


def is_ahead(now: datetime, *times: datetime | None) -> bool:
    return any(time is not None and time > now + SKEW for time in times)


def set_back(rollout: Rollout, now: datetime) -> bool:
    """Set the rollout's times that lie in the future to `now`. Return False if there are none."""
    ahead = {name: now for name in _TIMES if is_ahead(now, getattr(rollout, name))}
    if not ahead:
        return False
    logger.warning(
        "rollout %s: %s was in the future because of a wrong clock; set to now", rollout.pk, ", ".join(ahead)
    )
    Rollout.objects.filter(pk=rollout.pk, version=rollout.version).update(wake_at=None, **ahead)
    return True
