"""The types of notifications, each with the description that people choose it by."""

from collections.abc import Mapping
from typing import Any

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


def of_entry(body: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the notification's type and sentence for an audit entry, or None if the entry is not reported."""
    if body["outcome"] != "done":
        return None
    action, who = body["action"], body["actor"]["label"]
    subject = _subject(body)
    changed = {change["path"]: change for change in body["diff"]}
    if action.endswith(".break_glass"):
        return BREAK_GLASS, f"{who} bypassed the approval of {subject} (break-glass)."
    if (done := _BACK.get(action)) is not None:
        return ROLLED_BACK, done.format(rollout=_capitalized(subject), who=who)
    if action == "change.request" or changed.get("/state", {}).get("after") == "awaiting_approval":
        return APPROVAL_WAITS, f"{_capitalized(subject)} waits for an approval, requested by {who}."
    if action == "environment.edit" and "/four_eyes" in changed:
        way = "on" if changed["/four_eyes"].get("after") else "off"
        return FOUR_EYES, f"Four eyes are {way} in {body['environment'] or subject}, switched by {who}."
    return None


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _subject(body: Mapping[str, Any]) -> str:
    """Describe the entry's object, with its workload and environment if it has them."""
    kind = body["target"]["kind"].replace("_", " ")
    named = body["workload"] or (body["target"]["id"] if kind != "rollout" else "")
    where = body["environment"]
    place = f" in {where}" if where and where != named else ""
    return f"the {kind}{f' of {named}' if named else ''}{place}"
