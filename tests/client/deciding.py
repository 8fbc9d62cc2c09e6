"""Assignments for the tests of decisions, built from snapshot entries like those a router receives."""

from typing import Any

from pointsman.assignment import WorkloadAssignment
from pointsman.policy import digest
from tests.client.policies import always, two_stage


def side(policy: dict[str, Any], version: int) -> dict[str, Any]:
    return {"version": version, "digest": digest(policy), "policy": policy}


def entry(policy: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A workload without a rollout."""
    plain = {"revision": 7, "unit": "conversation", "baseline": side(policy or two_stage(), 12)}
    return {**plain, "candidate": None, "rollout": None, "pin": None, **changes}


def moving(mode: str, share_pcm: int = 0, **changes: Any) -> dict[str, Any]:
    """A workload whose candidate routes everything to the large model."""
    rollout = {"id": "0192", "stage": 2, "mode": mode, "share_pcm": share_pcm, "salt": "s", "mirror_pcm": 0}
    return entry(candidate=side(always("large"), 13), rollout={**rollout, **changes})


def assigned(given: dict[str, Any] | None = None) -> WorkloadAssignment:
    return WorkloadAssignment.build("summaries", given or entry(), environment="production")
