"""The sums of a period by route, read from the coarsest rollups that are ready.

sources      which days, hours and minutes a period is read from
statements   their SQL, united, so that many periods take as many queries as one
sums         the sums by route, by arm and time, and the latencies
"""

from rollout_app.review.reading.sources import (
    Periods,
    Sources,
    Span,
    Times,
    midnight,
    minutes_of,
    parts_of,
    sources,
    times,
    times_of,
)
from rollout_app.review.reading.sums import (
    Route,
    Routes,
    Slots,
    TimedRow,
    added,
    arms_by_time,
    grouped,
    latencies_by_part,
    merged,
    routes,
    routes_by_part,
    routes_of,
    timed_rows,
)

__all__ = [
    "Periods",
    "Route",
    "Routes",
    "Slots",
    "Sources",
    "Span",
    "TimedRow",
    "Times",
    "added",
    "arms_by_time",
    "grouped",
    "latencies_by_part",
    "merged",
    "midnight",
    "minutes_of",
    "parts_of",
    "routes",
    "routes_by_part",
    "routes_of",
    "sources",
    "timed_rows",
    "times",
    "times_of",
]
