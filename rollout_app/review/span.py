"""The one rule for figures per day: amounts of less than a day are shown as they are, with their time. Pure.

Divided by half an hour, the first few tasks would give a figure per day that changes twofold within minutes.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.web.display import minutes
from pointsman.plurals import counted

LEAST_DAYS = 1.0
_MINUTE, _DAY = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class TrafficSpan:
    """A time with traffic, in days. Shown amounts are divided by `divisor`; `words` follow them."""

    days: float

    @classmethod
    def between(cls, start: datetime, end: datetime) -> "TrafficSpan":
        """At least a minute: traffic is summed by the minute."""
        return cls(max(end - start, _MINUTE) / _DAY)

    @property
    def is_long(self) -> bool:
        """Whether it is long enough for figures per day."""
        return self.days >= LEAST_DAYS

    @property
    def divisor(self) -> float:
        return self.days if self.is_long else 1.0

    @property
    def length(self) -> str:
        """`3.2 days`, `1 day`, `2 h 5 min`"""
        if not self.is_long:
            return minutes(self.days * 1440)
        return counted(round(self.days, 1), "day")

    @property
    def words(self) -> str:
        """`a day`, or of less than a day the time itself: `in 38 min`."""
        return "a day" if self.is_long else f"in {self.length}"
