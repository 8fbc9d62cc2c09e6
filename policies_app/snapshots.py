"""Builds what routers receive. `fragment` runs inside the change's transaction, `publish` after its commit.

A snapshot is the environment's header and one fragment per workload. Keeping the fragments ready, as text,
makes the cost of publishing a change the size of that change, not the size of the environment.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from policies_app.models import Assignment, PolicyVersion

log = logging.getLogger(__name__)

FORMAT = 1
# Called with (environment name, revision) after a commit; `serving` adds its own at start. An error in one
# must not reach the person whose change is already committed.
_listeners: list[Callable[[str, int], None]] = []


def on_publish(listener: Callable[[str, int], None]) -> None:
    _listeners.append(listener)


def publish(environment: str, revision: int) -> None:
    """Wake whoever serves this environment. A hint: every process also looks at the revision by itself."""
    for listener in _listeners:
        try:
            listener(environment, revision)
        except Exception:
            log.exception("a listener failed on %s r%s; it will look by itself", environment, revision)


def _version_json(version: PolicyVersion | None) -> str:
    if version is None:
        return "null"
    # `canonical` is spliced in as it stands, so that its SHA-256 is the digest beside it.
    return f'{{"version":{version.number},"digest":"{version.digest}","policy":{version.canonical}}}'


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def fragment(assignment: Assignment) -> str:
    """The workload's entry of the snapshot, as JSON text (protocol version 1)."""
    rollout = assignment.rollout and {
        "id": str(assignment.rollout),
        "stage": assignment.stage,
        "mode": assignment.mode,
        "share_pcm": assignment.share_pcm,
        "salt": assignment.salt,
        "mirror_pcm": assignment.mirror_pcm,
        "cost_cap_nusd": assignment.cost_cap_nusd,
    }
    pin = {"model": assignment.pin_model, "reason": assignment.pin_reason} if assignment.pin_model else None
    return (
        f'{{"revision":{assignment.revision},"unit":{_dump(assignment.workload.unit)},'
        f'"baseline":{_version_json(assignment.baseline)},"candidate":{_version_json(assignment.candidate)},'
        f'"rollout":{_dump(rollout)},"pin":{_dump(pin)}}}'
    )
