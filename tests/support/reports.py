"""Reports of routers, valid unless a test changes them."""

import uuid
from datetime import UTC, datetime
from typing import Any

from policies_app.models import Assignment

# One moment for all: otherwise two reports of a test would occasionally fall into two minutes, and be two rows. It
# is the start of the tests, possibly minutes ago. What must be ahead of the database's clock needs its own moment.
NOW = datetime.now(UTC)


def bucket(assignment: Assignment, **changes: Any) -> dict[str, Any]:
    """The example of the protocol: 118 tasks of the baseline, outside a rollout."""
    document: dict[str, Any] = {
        "minute": f"{NOW:%Y-%m-%dT%H:%M:00Z}", "workload": assignment.workload.name, "rollout": None, "stage": None,
        "arm": "baseline", "version": assignment.baseline.number,
        "endpoint": "/tickets/summary", "rule": "default", "model": "small",
        "tasks": 118, "successes": 109, "failures": 9, "ungraded": 0,
        "errors": 2, "escalations": 11, "fallbacks": 1, "retries": 3, "attempts": 133,
        "quality": {"n": 118, "sum": 104.2, "sum_sq": 97.9},
        "confidence": {"n": 118, "sum": 88.1, "sum_sq": 70.3},
        "cost_nusd": {
            "n": 118, "sum": 51234000, "sum_sq": 2.9e13, "sum_on_success": 47000000,
            "capped": {"sum": 50100000, "sum_sq": 2.4e13, "sum_on_success": 46000000},
            "histogram": {"scale": 4, "zero": 0, "counts": {"301": 80, "322": 38}},
        },
        "latency_ms": {"scale": 4, "zero": 0, "counts": {"95": 3, "101": 115}},
        "groups": {"7": {"tasks": 4, "failures": 1}},
        "models": {"small": 118, "large": 11},
        "errors_by_kind": {"timeout": 2},
    }  # fmt: skip
    return document | changes


def batch(*buckets: dict[str, Any], batch_id: str = "") -> dict[str, Any]:
    return {"batch_id": batch_id or str(uuid.uuid4()), "router": "r-1", "buckets": list(buckets)}


def event(assignment: Assignment, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "event_id": str(uuid.uuid4()), "at": f"{NOW:%Y-%m-%dT%H:%M:%SZ}",
        "workload": assignment.workload.name, "arm": "baseline", "rollout": None,
        "version": assignment.baseline.number, "endpoint": "/tickets/summary", "rule": "default",
        "model": "small", "success": True, "quality": 0.9, "confidence": 0.81, "cost_nusd": 410000,
        "latency_ms": 812, "escalated": False, "fallback": False, "retries": 0, "attempts": 1, "error": None,
    }  # fmt: skip
    return document | changes
