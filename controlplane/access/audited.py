"""The rows that `audit verify` compares with their entries: people, keys, roles, teams, invitations, change
requests."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.contrib.auth.models import User

from controlplane.access.actions import invitation_fields, key_fields, person_fields, team_fields
from controlplane.access.actions.accounts import STOCK
from controlplane.access.change_requests import request_fields
from controlplane.access.models import ChangeRequest, Invitation, Key, Membership, Team
from controlplane.audit import sentences, subjects
from controlplane.audit.entries import body_of
from controlplane.audit.models import Entry
from controlplane.audit.subjects import Said, Subject

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _labels(ids: Iterable[str]) -> dict[str, str]:
    return {
        key_id: f"“{label}”"
        for key_id, label in Key.objects.filter(key_id__in=ids).values_list("key_id", "label")
    }


def _usernames(ids: Iterable[str]) -> dict[str, str]:
    wanted = [found for found in ids if found.isdecimal()]
    return {str(pk): name for pk, name in User.objects.filter(pk__in=wanted).values_list("pk", "username")}


def _invited(ids: Iterable[str]) -> dict[str, str]:
    wanted = [found for found in ids if _UUID.fullmatch(found)]
    return {str(pk): who for pk, who in Invitation.objects.filter(pk__in=wanted).values_list("pk", "invited")}


def _changes(ids: Iterable[str]) -> dict[str, str]:
    """Map ids to what was requested."""
    wanted = [found for found in ids if _UUID.fullmatch(found)]
    return {str(row.pk): _asked_for(row) for row in ChangeRequest.objects.filter(pk__in=wanted)}


def _asked_for(row: ChangeRequest) -> str:
    match row.action:
        case "assignment.serve_first":
            return f"the first version (v{row.subject.get('version')}) of {row.workload}"
        case "membership.grant":
            return f"the role {row.subject.get('role')} for {row.subject.get('user')}"
    return "the end of four eyes"


_INVITED = re.compile(rf"(.+) invited them \(invitation ({_UUID.pattern})\)\.", re.DOTALL)


def _accepted(entries: Sequence[Entry]) -> dict[int, str]:
    """Write the entries of accepted invitations: the invited person is their actor and their target."""
    own = {
        entry.seq: _INVITED.fullmatch(entry.reason) for entry in entries if entry.actor_id == entry.target_id
    }
    found = {seq: match for seq, match in own.items() if match}
    used = Invitation.objects.filter(pk__in=[match[2] for match in found.values()])
    accepted = {str(pk): str(by) for pk, by in used.values_list("pk", "accepted_by")} if found else {}
    roles = (
        {entry.seq: body_of(entry)["diff"] for entry in Entry.objects.filter(seq__in=found)} if found else {}
    )
    words = {}
    for entry in entries:
        match = found.get(entry.seq)
        if match and accepted.get(match[2]) == entry.actor_id:
            words[entry.seq] = (
                f"{entry.who} accepted an invitation by {match[1]}{_given(entry, roles[entry.seq])}"
            )
    return words


def _given(entry: Entry, diff: Sequence[Mapping[str, Any]]) -> str:
    if entry.action == "user.create":
        return " and created an account"
    after = {change["path"]: change.get("after") for change in diff}
    return f", with the role {after.get('/role')} in {after.get('/environment') or 'every environment'}"


def register() -> None:
    sentences.register("key", _labels)
    sentences.register("user", _usernames)
    sentences.register("invitation", _invited)
    sentences.register("change_request", _changes)
    sentences.register_words("membership.grant", _accepted)
    sentences.register_words("user.create", _accepted)
    subjects.register(Subject("key", _described_keys, _keys))
    subjects.register(subjects.by_target("team", _teams))
    subjects.register(subjects.by_target("invitation", _invitations))
    subjects.register(Subject("membership", _described_memberships, _memberships))
    subjects.register(Subject("person", _described_people, _people))
    subjects.register(Subject("change request", _described_change_requests, _change_requests))


def _described_keys(body: Mapping[str, Any]) -> Iterable[Said]:
    """Describe keys. A rotation's entry describes two: the old key, and its whole successor."""
    if body["target"]["kind"] != "key" or not body["diff"]:
        return
    told = subjects.replayed(body["diff"])
    successor = told.pop("successor", None)
    yield body["target"]["id"], told
    if isinstance(successor, dict):
        yield successor["key_id"], successor


def _keys() -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((key.key_id, key_fields(key)) for key in Key.objects.order_by("pk").iterator())


def _teams() -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((team.name, team_fields(team)) for team in Team.objects.prefetch_related("members"))


def _invitations() -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((str(row.pk), invitation_fields(row)) for row in Invitation.objects.order_by("pk").iterator())


def _described_memberships(body: Mapping[str, Any]) -> Iterable[Said]:
    """Describe memberships: a grant has its values in `after`, a withdrawal in `before`; the target is the person."""
    side = {
        "membership.grant": "after",
        "membership.break_glass": "after",
        "membership.withdraw": "before",
    }.get(body["action"])
    if side is None:
        return
    told = {change["path"]: change[side] for change in body["diff"] if side in change}
    name = _name(body["target"]["id"], told["/role"], told["/environment"])
    yield name, {} if side == "after" else None


def _memberships() -> Iterable[tuple[str, Mapping[str, Any]]]:
    for row in Membership.objects.order_by("pk").iterator():
        yield _name(str(row.user_id), row.role, row.environment), {}


def _name(user_id: str, role: str, environment: str) -> str:
    return f"{role} of user {user_id} in {environment or 'every environment'}"


_OF_A_ROLE = {"user", "role", "environment"}  # values of role entries, whose target is also a person


def _described_people(body: Mapping[str, Any]) -> Iterable[Said]:
    """Describe accounts: each entry whose target is an account, and the one that lists all accounts after an
    upgrade."""
    if body["target"]["kind"] != "user":
        return
    told = subjects.replayed(body["diff"])
    if body["action"] == STOCK:
        yield from told.items()
    elif told and not told.keys() <= _OF_A_ROLE:
        yield body["target"]["id"], told


def _people() -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((str(user.pk), person_fields(user)) for user in User.objects.order_by("pk").iterator())


def _described_change_requests(body: Mapping[str, Any]) -> Iterable[Said]:
    """Describe change requests: their own entries, and the entry of the applied change, which names the approvers."""
    if body["target"]["kind"] == "change_request":
        values = subjects.replayed(body["diff"])
        if (
            body["action"] == "change.request"
            or "state" in values
            or isinstance(values.get("approvals"), list)
        ):
            yield body["target"]["id"], values
    elif body["approvals"] and isinstance(body["evidence"], dict) and "change_request" in body["evidence"]:
        values = {"state": "applied", "approvals": body["approvals"], "ended_by": body["actor"]["label"]}
        yield body["evidence"]["change_request"], values


def _change_requests() -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((str(row.pk), request_fields(row)) for row in ChangeRequest.objects.order_by("pk").iterator())
