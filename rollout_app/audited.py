"""What `audit verify` holds rollouts, their history, their approvals and their contributors against."""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.audit import sentences, subjects
from controlplane.audit.subjects import Said, Subject
from rollout_app.engine.guardrails import METRICS
from rollout_app.engine.metrics import Metric
from rollout_app.models import Approval, Rollout, Transition

Rows = Iterable[tuple[str, Mapping[str, Any]]]
PROPOSING = ("rollout.draft", "rollout.propose", "rollout.amend")


def _people_call(ids: Iterable[str]) -> dict[str, str]:
    """Rollouts by the versions that they move between."""
    rows = Rollout.objects.filter(pk__in=ids).values_list("pk", "baseline__number", "candidate__number")
    return {str(pk): f"v{baseline} → v{candidate}" for pk, baseline, candidate in rows}


def _guardrail_names(ids: Iterable[str]) -> dict[str, str]:
    """Of `workload/metric`."""
    names = {}
    for found in ids:
        workload, _, metric = found.rpartition("/")
        if metric in METRICS:
            names[found] = f"{Metric(metric).spec.phrase} of {workload}"
    return names


def register() -> None:
    sentences.register("rollout", _people_call)
    sentences.register("guardrail", _guardrail_names)
    subjects.register(Subject("rollout", _said_of_rollouts, _rollouts))
    subjects.register(Subject("transition", _said_of_transitions, _transitions))
    subjects.register(Subject("approval", _said_of_approvals, _approvals))
    subjects.register(Subject("contributor", _said_of_contributors, _contributors))


def _is_move(body: Mapping[str, Any]) -> bool:
    return body["target"]["kind"] == "rollout" and any(c["path"] == "/version" for c in body["diff"])


def _said_of_rollouts(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] == "rollout.draft":
        yield body["target"]["id"], {"state": "draft"}
    elif _is_move(body):
        told = subjects.replayed(body["diff"])
        said: dict[str, Any] = {name: told[name] for name in ("state", "stage", "version") if name in told}
        fixed = body["evidence"] if body["action"] in PROPOSING else {}
        said |= {name: fixed[name] for name in ("guardrails", "terms") if name in fixed}
        yield body["target"]["id"], said


def _rollouts() -> Rows:
    rows = Rollout.objects.order_by("pk").values("state", "stage", "version", "guardrails", "terms", "pk")
    for row in rows.iterator():
        yield str(row["pk"]), {**row, "pk": None}


def _said_of_transitions(body: Mapping[str, Any]) -> Iterable[Said]:
    if not _is_move(body):
        return
    told = {change["path"][1:]: change for change in body["diff"]}
    said = {
        "event": body["action"].removeprefix("rollout."),
        "reason": body["reason"],
        "actor_kind": body["actor"]["kind"],
        "actor_label": body["actor"]["label"],
        "revision": told.get("revision", {}).get("after"),
    }
    for column in ("state", "stage"):
        if column in told:
            said |= {f"before_{column}": told[column]["before"], f"after_{column}": told[column]["after"]}
    # A rollout begins at version 1, and each transition makes the next one.
    yield f"{body['target']['id']}/{told['version']['after'] - 1}", said


def _transitions() -> Rows:
    columns = (
        "event", "reason", "actor_kind", "actor_label", "revision", "before_state", "after_state",
        "before_stage", "after_stage",
    )  # fmt: skip
    for row in Transition.objects.order_by("pk").values("rollout_id", "sequence", *columns).iterator():
        yield f"{row['rollout_id']}/{row['sequence']}", {name: row[name] for name in columns}


def _said_of_approvals(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] not in ("rollout.approve", "rollout.approve_stage"):
        return
    for given in body["approvals"] or ():
        name = _name(body["target"]["id"], given["stage"], given["approver_user_id"], given["binding"])
        yield name, {"approver_label": given["approver"], "reason": given["reason"]}


def _approvals() -> Rows:
    for row in Approval.objects.order_by("pk").iterator():
        name = _name(str(row.rollout_id), row.stage, row.approver_user_id, row.binding)
        yield name, {"approver_label": row.approver_label, "reason": row.reason}


def _name(rollout: str, stage: int | None, user_id: str, binding: str) -> str:
    what = "the start" if stage is None else f"stage {stage}"
    return f"of {what} of {rollout} by user {user_id} for {binding[:16]}"


def _said_of_contributors(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] in PROPOSING:
        yield f"{body['actor']['user_id'] or 'unknown'} of {body['target']['id']}", {}


def _contributors() -> Rows:
    for pk, people in Rollout.objects.order_by("pk").values_list("pk", "contributors").iterator():
        for user_id in people:
            yield f"{user_id or 'unknown'} of {pk}", {}
