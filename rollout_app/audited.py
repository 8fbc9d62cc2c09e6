"""What `audit verify` compares with the log: rollouts, transitions, approvals, contributors, plans and guardrails."""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.audit import sentences, subjects
from controlplane.audit.subjects import Said, Subject
from controlplane.core.errors import PlanRefused
from rollout_app.engine import plans
from rollout_app.engine.guardrails import METRICS
from rollout_app.engine.metrics import Metric
from rollout_app.models import Approval, GuardrailOverride, Plan, Rollout, Transition

Rows = Iterable[tuple[str, Mapping[str, Any]]]
PROPOSING = ("rollout.draft", "rollout.propose", "rollout.amend")


def _people_call(ids: Iterable[str]) -> dict[str, str]:
    """Name rollouts by the versions that they move between."""
    rows = Rollout.objects.filter(pk__in=ids).values_list("pk", "baseline__number", "candidate__number")
    return {str(pk): f"v{baseline} → v{candidate}" for pk, baseline, candidate in rows}


def _guardrail_names(ids: Iterable[str]) -> dict[str, str]:
    """Name guardrails given as `workload/metric`."""
    names = {}
    for found in ids:
        workload, _, metric = found.rpartition("/")
        if metric in METRICS:
            names[found] = f"{Metric(metric).spec.phrase} of {workload}"
    return names


def register() -> None:
    sentences.register("rollout", _people_call)
    sentences.register("guardrail", _guardrail_names)
    subjects.register(Subject("rollout", _said_of_rollouts, _rollouts, implied=_said_at_its_beginning))
    subjects.register(
        Subject("transition", _said_of_transitions, _transitions, implied=_unchanged_in_transitions)
    )
    subjects.register(Subject("approval", _said_of_approvals, _approvals))
    subjects.register(Subject("contributor", _said_of_contributors, _contributors))
    subjects.register(Subject("plan", _said_of_plans, _plans, _plan_of_new_databases))
    subjects.register(Subject("guardrail", _said_of_guardrails, _guardrails))


def _is_move(body: Mapping[str, Any]) -> bool:
    return body["target"]["kind"] == "rollout" and any(c["path"] == "/version" for c in body["diff"])


# Columns of a rollout, by their names in the audit entries of its proposal (`proposals.outline`). `audit verify`
# compares these with the log; a column that is missing here can be changed unnoticed.
PROPOSED = {
    "guardrails": "guardrails",
    "terms": "terms",
    "four_eyes": "four_eyes",
    "baseline": "baseline",
    "candidate": "candidate",
    "plan": "plan_name",
    "stages": "stages",
    "scheduled_for": "scheduled_for",
    "salt": "salt",
    "proposer_label": "proposer_label",
    "proposer_user_id": "proposer_user_id",
}


def _said_of_rollouts(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] == "rollout.draft":
        told = subjects.replayed(body["diff"])
        yield body["target"]["id"], {"state": "draft"} | _proposed(told)
    elif _is_move(body):
        told = subjects.replayed(body["diff"])
        said: dict[str, Any] = {name: told[name] for name in ("state", "stage", "version") if name in told}
        fixed = body["evidence"]
        if body["action"] in (*PROPOSING, "rollout.revert") and isinstance(fixed, dict):
            said |= _proposed(fixed)
        elif isinstance(fixed, dict) and "reference" in fixed and "guardrails" in fixed:  # a start
            said["guardrails"] = fixed["guardrails"]
        yield body["target"]["id"], said


def _said_at_its_beginning(body: Mapping[str, Any], told: subjects.Told) -> Iterable[Said]:
    """Yield what a rollout's first entry implies: its place, its reason, the rollout that it reverts, and stage 0."""
    begun = (*PROPOSING, "rollout.revert")
    if body["action"] not in begun or told.get("rollout", {}).get(body["target"]["id"]):
        return
    said = {name: body[name] for name in ("environment", "workload", "reason")} | {
        "reverts": None,
        "stage": 0,
    }
    if body["action"] == "rollout.revert":
        said["reverts"] = body["evidence"].get("reverts", subjects.UNSAID)
    yield body["target"]["id"], said


def _proposed(told: Mapping[str, Any]) -> dict[str, Any]:
    return {column: told[name] for name, column in PROPOSED.items() if name in told}


def _rollouts() -> Rows:
    columns = {*PROPOSED.values(), "state", "stage", "version", "pk", "reason"} - {"baseline", "candidate"}
    named = {
        "baseline__number": "baseline", "candidate__number": "candidate", "environment__name": "environment",
        "workload__name": "workload", "reverts_id": "reverts",
    }  # fmt: skip
    for row in Rollout.objects.order_by("pk").values(*columns, *named).iterator():
        others = {name: row.pop(column) for column, name in named.items()}
        yield str(row.pop("pk")), {**row, **others}


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
    yield _transition_name(body), said


def _unchanged_in_transitions(body: Mapping[str, Any], told: subjects.Told) -> Iterable[Said]:
    """Yield the state and the stage that a transition did not change: a diff contains changes only."""
    if not _is_move(body):
        return
    changed = {change["path"][1:] for change in body["diff"]}
    rollout = told.get("rollout", {}).get(body["target"]["id"]) or {}
    kept = [column for column in ("state", "stage") if column in rollout and column not in changed]
    yield (
        _transition_name(body),
        {f"{when}_{column}": rollout[column] for column in kept for when in ("before", "after")},
    )


def _transition_name(body: Mapping[str, Any]) -> str:
    """A rollout begins at version 1, and each transition adds 1."""
    version = next(change["after"] for change in body["diff"] if change["path"] == "/version")
    return f"{body['target']['id']}/{version - 1}"


def _transitions() -> Rows:
    columns = (
        "event", "reason", "actor_kind", "actor_label", "revision", "before_state", "after_state",
        "before_stage", "after_stage",
    )  # fmt: skip
    for row in Transition.objects.order_by("pk").values("rollout_id", "sequence", *columns).iterator():
        yield f"{row['rollout_id']}/{row['sequence']}", {name: row[name] for name in columns}


def _said_of_approvals(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] not in ("rollout.approve", "rollout.approve_stage", "rollout.withdraw_approval"):
        return
    withdrawn = body["action"] == "rollout.withdraw_approval"
    for given in body["approvals"] or ():
        name = _name(body["target"]["id"], given["stage"], given["approver_user_id"], given["binding"])
        yield name, {"approver_label": given["approver"], "reason": given["reason"], "withdrawn": withdrawn}


def _approvals() -> Rows:
    for row in Approval.objects.order_by("pk").iterator():
        name = _name(str(row.rollout_id), row.stage, row.approver_user_id, row.binding)
        withdrawn = row.withdrawn_at is not None
        yield name, {"approver_label": row.approver_label, "reason": row.reason, "withdrawn": withdrawn}


def _name(rollout: str, stage: int | None, user_id: str, binding: str) -> str:
    what = "the start" if stage is None else f"stage {stage}"
    return f"of {what} of {rollout} by user {user_id} for {binding[:16]}"


def _said_of_contributors(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] in PROPOSING:
        yield f"{body['actor']['user_id'] or 'unknown'} of {body['target']['id']}", {}


def _contributors() -> Rows:
    for pk, people in Rollout.objects.order_by("pk").values_list("pk", "contributors").iterator():
        for user_id in people if isinstance(people, list) else ():  # it may have been edited by hand
            yield f"{user_id or 'unknown'} of {pk}", {}


def _said_of_plans(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["target"]["kind"] != "plan":
        return
    if body["action"] == "plan.remove":
        yield body["target"]["id"], None
    elif told := subjects.replayed(body["diff"]):
        yield body["target"]["id"], told | ({"stages": _filled(told["stages"])} if "stages" in told else {})


def _plans() -> Rows:
    for row in Plan.objects.order_by("pk").iterator():
        stages = _filled(row.stages)
        yield row.name, {"description": row.description, "stages": stages, "version": row.version}


def _plan_of_new_databases(name: str) -> Mapping[str, Any] | None:
    saved = plans.SAVED.get(name)
    return saved and {"description": saved[0], "stages": _filled(saved[1]), "version": 1}


def _filled(stages: Any) -> Any:
    """Fill in stage fields that later releases added. Return an invalid plan unchanged."""
    try:
        return plans.check(stages)
    except PlanRefused:
        return stages


def _said_of_guardrails(body: Mapping[str, Any]) -> Iterable[Said]:
    """Read a guardrail entry. A workload may have a margin and an absolute bound on one metric; the entry's evidence
    says which.
    """
    if body["target"]["kind"] != "guardrail" or not body["diff"]:
        return
    told, evidence = subjects.replayed(body["diff"]), body["evidence"]
    before = {change["path"][1:]: change.get("before") for change in body["diff"]}
    is_bound = told.get("bound") is not None or before.get("bound") is not None
    if isinstance(evidence, dict) and "absolute" in evidence:
        is_bound = evidence["absolute"]
    name = _guardrail_name(body["target"]["id"], is_bound)
    yield name, None if body["action"] == "guardrail.remove" else told


def _guardrails() -> Rows:
    columns = ("metric", "enabled", "margin", "weight", "bound", "version")
    for row in GuardrailOverride.objects.select_related("workload").order_by("pk").iterator():
        name = _guardrail_name(f"{row.workload.name}/{row.metric}", row.bound is not None)
        yield name, {column: getattr(row, column) for column in columns}


def _guardrail_name(target: str, is_bound: bool) -> str:
    return f"{target} (absolute)" if is_bound else target
