"""Compiled assignments, for the endpoints that decide in place of a router."""

import json
from functools import lru_cache

from pointsman.assignment import WorkloadAssignment
from pointsman.errors import PointsmanError
from policies_app.snapshots.cache import CachedEnvironment


def assignment_of(environment: CachedEnvironment | None, name: str) -> WorkloadAssignment | None:
    """Return what is served for the workload; None if nothing is, or it cannot be compiled."""
    fragment = environment.fragments.get(name) if environment is not None else None
    if fragment is None or environment is None:
        return None
    return _built(environment.header.name, name, fragment.text)


@lru_cache(maxsize=1_024)
def _built(environment: str, name: str, text: bytes) -> WorkloadAssignment | None:
    """Compile an assignment, once per content (about a millisecond)."""
    try:
        return WorkloadAssignment.build(name, json.loads(text), environment=environment)
    except PointsmanError:
        return None  # a router refuses it too, and reports that in an ack
