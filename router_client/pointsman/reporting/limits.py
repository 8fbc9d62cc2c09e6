"""Limits for reports, shared by routers, control plane and `FakeControlPlane`.

No real minute reaches them. They keep the sums of very many reports within 64 bits.
"""

from __future__ import annotations

from pointsman.bucketing import CELLS
from pointsman.comparison import SAME

__all__ = ["CELLS", "SAME"]

COUNT = 10**9
MONEY_NUSD = 10**15  # a million dollars per bucket
TASK_COST_NUSD = 10**12  # a thousand dollars per task
REAL = 1e36
LATENCY_MS = 1e12
VERSION = 2**31 - 1
STAGE = 1_000
TEXT = 200  # characters of an endpoint
NAME = 120  # characters of a workload, rule, model or kind of error
PAIR = 250  # characters of a route pair, `baseline's model>candidate's model`
ROLLOUT = 36
ROUTER = 128
EVENT_ID = 62
DECISION_ID = 4_096

BUCKETS = 1_000  # per batch; the same for `decided` and `cells` entries
BYTES = 1 << 20  # of a request's body
COMMITTED = 202  # the only status of an accepted report: a login page in between answers everything with 200
PARTS = 64  # models, kinds of error, or route pairs per bucket
ROUTES = 256  # per bucket, in shadow
GROUPS = 32

OTHER = "other"  # counts the route pairs of a bucket beyond the first `PARTS`
