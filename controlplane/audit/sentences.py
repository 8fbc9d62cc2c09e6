"""Entries as sentences: "ben approved v1 → v2 of summaries in production".

The action gives the verb, the target the object. Apps register names for targets that are only ids (`register`); they
are queried once per page.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from controlplane.audit.models import Entry

Names = Callable[[Iterable[str]], Mapping[str, str]]  # ids → display names

_names: dict[str, Names] = {}
_words: dict[str, Callable[[Sequence[Entry]], Mapping[int, str]]] = {}

VERBS = {
    "rollout.draft": "drafted", "rollout.propose": "proposed", "rollout.amend": "amended",
    "rollout.approve": "approved", "rollout.approve_stage": "approved the next stage of",
    "rollout.reject": "rejected", "rollout.cancel": "cancelled",
    "rollout.withdraw_approval": "withdrew the approval of",
    "rollout.start": "started", "rollout.break_glass": "started, without approval,",
    "rollout.advance": "advanced", "rollout.complete": "completed", "rollout.pause": "paused",
    "rollout.resume": "resumed", "rollout.roll_back": "rolled back", "rollout.abort": "aborted",
    "rollout.confirm_rollback": "confirmed the rollback of", "rollout.confirm_abort": "confirmed the abort of",
    "rollout.revert": "reverted", "rollout.mirrors": "changed the mirrors of", "rollout.schedule": "scheduled",
    "assignment.serve_first": "began to serve", "assignment.break_glass": "began to serve, without approval,",
    "assignment.stop_serving": "stopped serving", "assignment.pin": "pinned", "assignment.unpin": "unpinned",
    "workload.register": "registered", "workload.edit": "edited",
    "environment.register": "registered", "environment.edit": "edited", "environment.new_epoch": "restored",
    "environment.break_glass": "edited, without approval,", "environment.four_eyes_off": "switched four eyes off in",
    "version.add": "wrote", "model.add": "added", "model.edit": "edited",
    "plan.add": "saved", "plan.edit": "edited", "plan.remove": "removed",
    "guardrail.set": "changed the guardrail on", "guardrail.remove": "removed the guardrail on",
    "key.issue": "issued", "key.rotate": "rotated", "key.revoke": "revoked",
    "membership.grant": "gave a role to", "membership.withdraw": "took a role from",
    "team.create": "created", "team.set_members": "changed the members of",
    "change.request": "requested", "change.approve": "approved", "change.reject": "rejected",
    "change.withdraw": "withdrew", "user.first_admin": "created the first administrator:",
    "user.create": "created the account of", "user.take_stock": "listed the existing accounts:",
    "password.rehash": "rehashed the password of",
    "invitation.create": "invited", "invitation.accept": "accepted", "invitation.revoke": "revoked",
    "user.deactivate": "deactivated", "user.activate": "activated", "user.end_sessions": "ended the sessions of",
    "user.withdraw_superuser": "withdrew the superuser rights of",
    "membership.break_glass": "gave a role without approval to",
    "password.change": "changed the password of", "second_factor.add": "set up a second factor of",
    "second_factor.remove": "removed the second factor of",
    "second_factor.new_recovery_codes": "generated new recovery codes for",
    "provider.connect": "connected the company's account of",
    "provider.disconnect": "disconnected the company's account of",
    "session.begin": "signed in", "session.end": "signed out", "team.join": "joined",
    "signing_key.rotate": "rotated", "signing_key.retire": "retired",
    "signing_key.noticed": "noticed changed signing keys, now with",
    "break_glass.review": "reviewed the use of break-glass:",
    "receiver.add": "added", "receiver.edit": "edited", "receiver.test": "tested",
    "receiver.rotate_secret": "rotated the secret of", "receiver.send_again": "sent a delivery again to",
}  # fmt: skip
_BASES = {
    "began": "begin", "cancelled": "cancel", "gave": "give", "pinned": "pin", "sent": "send", "stopped": "stop",
    "took": "take", "unpinned": "unpin", "withdrew": "withdraw", "wrote": "write",
}  # fmt: skip
_KEEP_THE_E = {
    "activated", "advanced", "approved", "changed", "completed", "created", "deactivated", "generated", "invited",
    "issued", "noticed", "paused", "proposed", "removed", "restored", "resumed", "retired", "revoked", "rotated",
    "saved", "scheduled",
}  # fmt: skip
# What Pointsman records about the log itself: the whole sentence after the actor's name.
_ABOUT_THE_LOG = {
    "audit.resume": "found changed rows in the log, and continued it after them",
    "audit.bad_checkpoint": "found a checkpoint that does not match the log",
    "refusals.folded": "was refused more often than the log lists",
}
SIGN_INS = {"session.begin", "session.end"}  # actions without an object


def register(kind: str, names: Names) -> None:
    """Register a function that maps the ids of targets of this kind to display names, as far as it knows them."""
    _names[kind] = names


def register_words(action: str, words: Callable[[Sequence[Entry]], Mapping[int, str]]) -> None:
    """Register a function that returns whole sentences for some entries of this action, by `seq`."""
    _words[action] = words


def names_of(entries: Sequence[Entry]) -> dict[str, Mapping[str, str]]:
    """Return the display names of the entries' targets, by kind and id. Kinds without registered names, and targets
    that do not exist, are left out."""
    asked: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        asked[entry.target_kind].add(entry.target_id)
    return {kind: _names[kind](ids) for kind, ids in asked.items() if kind in _names}


def told(entries: Sequence[Entry]) -> list[tuple[Entry, str]]:
    """Return each entry with its sentence."""
    known = names_of(entries)
    others: dict[int, str] = {}
    for action, words in _words.items():
        others |= words([entry for entry in entries if entry.action == action])
    return [
        (entry, others.get(entry.seq) or sentence(entry, known.get(entry.target_kind, {})))
        for entry in entries
    ]


def user_id(body: Mapping[str, Any]) -> str:
    """Return the id of the person who acted, in person or with a key, by an entry's body; "" for nobody."""
    actor = body["actor"]
    found = actor.get("user_id") if isinstance(actor, dict) else None
    return found if isinstance(found, str) else ""


def person_of(found: str) -> str:
    """Return the user name of a person by `user_id`; "" for nobody."""
    return _names["user"]([found]).get(found, f"user {found}") if found else ""


def sentence(entry: Entry, names: Mapping[str, str]) -> str:
    """Return who did what to what. `names` are display names of targets of the entry's kind."""
    verb = VERBS.get(entry.action)
    words = [verb or entry.action.partition(".")[2].replace("_", " "), *_object(entry, names)]
    if entry.target_kind == "path":
        return f"{entry.who} was refused at {entry.target_id}"
    if about := _ABOUT_THE_LOG.get(entry.action):
        return f"{entry.who} {about}"
    if entry.action == "rollout.approve" and entry.actor_kind == "system":
        return " ".join(["No approval is required for", *words[1:]])
    if entry.outcome != "refused":
        return " ".join([entry.who, *words])
    if verb is None:
        return f"{entry.who} was refused ({words[0]}) {' '.join(words[1:])}"
    return f"{entry.who} tried to {_base(' '.join(words))}, and was refused"


def _base(words: str) -> str:
    """Replace the leading verb, which is in the past tense, by its base form: "wrote v1" → "write v1"."""
    verb, _, rest = words.partition(" ")
    comma = "," if verb.endswith(",") else ""
    verb = verb.rstrip(",")
    base = _BASES.get(verb) or (verb[:-1] if verb in _KEEP_THE_E else verb.removesuffix("ed"))
    return f"{base}{comma} {rest}"


def _object(entry: Entry, names: Mapping[str, str]) -> list[str]:
    kind, found = entry.target_kind, entry.target_id
    if entry.action in SIGN_INS:
        return []
    words = []
    if kind == "rollout":
        words.append(f"{names.get(found, 'a rollout')} of {entry.workload}")
    elif kind == "assignment":
        words.append(entry.workload)
    elif kind == "guardrail":
        words.append(names.get(found, found))
    elif kind == "version":
        workload, _, number = found.rpartition("/")
        words.append(f"v{number} of {workload}")
    elif kind == "break_glass":
        words.append(names.get(found, "a use of it"))
    elif kind == "invitation":
        name = names.get(found, "somebody")
        words.append(name if entry.action == "invitation.create" else f"the invitation for {name}")
    elif kind == "change_request":
        words.append(names.get(found, "a change"))
    else:
        words.append(f"{kind.replace('_', ' ')} {names.get(found, found)}")
    if entry.environment and kind != "environment":
        words.append(f"in {entry.environment}")
    return words
