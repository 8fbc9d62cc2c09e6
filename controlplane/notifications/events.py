"""The types of notifications, each with the description that people choose it by."""

import logging
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError

from controlplane.audit import sentences
from controlplane.audit.models import Entry

log = logging.getLogger(__name__)

ROLLED_BACK = "rollout.rolled_back"
HELD = "rollout.held"
APPROVAL_WAITS = "approval.waiting"
REJECTED = "router.rejected"
BREAK_GLASS = "break_glass.opened"
REVIEWED = "break_glass.reviewed"
FOUR_EYES = "four_eyes.switched"
ENGINE_DEAD = "engine.dead"
CHECKPOINT = "audit.checkpoint"
TEST = "test"

TYPES: Mapping[str, str] = {
    ROLLED_BACK: "A rollout is rolled back by Pointsman or a person, aborted, or reverted after its completion",
    HELD: "A rollout has been held at one stage for longer than the set time",
    APPROVAL_WAITS: "A rollout, a stage or another change waits for an approval",
    REJECTED: "A router refuses a policy that is served",
    BREAK_GLASS: "Somebody bypassed an approval (break-glass)",
    REVIEWED: "A second person has reviewed a break-glass",
    FOUR_EYES: "Four eyes were switched on or off in an environment",
    ENGINE_DEAD: "The engine has stopped: nothing advances or is rolled back automatically",
    CHECKPOINT: "A signed checkpoint of the audit log; keep it where nobody can rewrite it",
}

# The actions that take routers back to the earlier version.
_BACK = {
    "rollout.roll_back": "{rollout} is being rolled back by {who}.",
    "rollout.abort": "{rollout} is being aborted by {who}.",
    "rollout.revert": "{rollout}, started by {who}, reverts a completed one.",
}


def of_entry(entry: Entry, body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the type and the sentence of each notification about an audit entry; none if it is not reported."""
    if body["outcome"] != "done":
        return []
    action, who = body["action"], body["actor"]["label"]
    changed = {change["path"]: change for change in body["diff"]}
    if action.endswith(".break_glass"):
        told = [(BREAK_GLASS, f"{_sentence(entry)}{_given(body, changed)} (break-glass).")]
    elif (done := _BACK.get(action)) is not None:
        told = [(ROLLED_BACK, done.format(rollout=_capitalized(_subject(body)), who=who))]
    elif action == "change.request":
        told = [(APPROVAL_WAITS, f"{_sentence(entry)}, which waits for an approval.")]
    elif changed.get("/state", {}).get("after") == "awaiting_approval":
        waits = f"{_capitalized(_subject(body))} waits for an approval, requested by {who}."
        told = [(APPROVAL_WAITS, waits)]
    else:
        told = []
    if action in ("environment.edit", "environment.break_glass") and "/four_eyes" in changed:
        way = "on" if changed["/four_eyes"].get("after") else "off"
        where = body["environment"] or body["target"]["id"]
        told.append((FOUR_EYES, f"Four eyes are {way} in {where}, switched by {who}."))
    return told


def _sentence(entry: Entry) -> str:
    """Return the sentence of the audit page, which names people, versions and changes instead of their ids."""
    try:
        return sentences.told([entry])[0][1]
    except (LookupError, TypeError, ValueError, ValidationError):  # no name may stop the action itself
        log.exception("the names for entry %d cannot be read", entry.seq)
        return sentences.sentence(entry, {})


def _given(body: Mapping[str, Any], changed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return what a break-glass changed, if the sentence does not say it."""
    if body["action"] == "membership.break_glass":
        role = changed.get("/role", {}).get("after", "unknown")
        return f": {role}" if body["environment"] else f": {role} in every environment"
    return ": four eyes are off" if "/four_eyes" in changed else ""


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _subject(body: Mapping[str, Any]) -> str:
    """Describe the entry's object, with its workload and environment if it has them."""
    kind = body["target"]["kind"].replace("_", " ")
    named = body["workload"] or (body["target"]["id"] if kind != "rollout" else "")
    where = body["environment"]
    place = f" in {where}" if where and where != named else ""
    return f"the {kind}{f' of {named}' if named else ''}{place}"
