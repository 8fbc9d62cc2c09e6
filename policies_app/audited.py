"""The rows that `audit verify` checks: environments, workloads, models, versions and assignments."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.audit import subjects
from controlplane.audit.subjects import Said, Subject
from policies_app.audited_rows import audited_fields
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Workload
from policies_app.snapshots.row_text import differences, prices_by_model

Rows = Iterable[tuple[str, Mapping[str, Any]]]


def register() -> None:
    subjects.register(subjects.by_target("environment", lambda: _named(Environment)))
    subjects.register(subjects.by_target("workload", lambda: _named(Workload)))
    subjects.register(subjects.by_target("model", lambda: _named(Model)))
    subjects.register(Subject("version", _described_versions, _versions))
    subjects.register(Subject("assignment", _described_assignments, _assignments))


def _named(model: type[Environment] | type[Workload] | type[Model]) -> Rows:
    return ((row.name, audited_fields(row)) for row in model._default_manager.order_by("pk").iterator())


def _described_versions(body: Mapping[str, Any]) -> Iterable[Said]:
    if body["action"] != "version.add":
        return
    digest = subjects.replayed(body["diff"])["digest"]
    author = body["actor"]
    yield (
        body["target"]["id"],
        {
            "digest": digest,
            "digest of its content": digest,
            "author_label": author["label"],
            "author_user_id": author["user_id"],
            "note": body["reason"],
        },
    )


def _versions() -> Rows:
    for version in PolicyVersion.objects.select_related("workload").order_by("pk").iterator():
        content = hashlib.sha256(version.canonical.encode()).hexdigest()
        yield (
            f"{version.workload.name}/{version.number}",
            {
                "digest": version.digest,
                "digest of its content": f"sha256:{content}",
                "author_label": version.author_label,
                "author_user_id": version.author_user_id,
                "note": version.note,
            },
        )


_SERVED = ("baseline", "candidate", "pin", "mode", "share_pcm", "mirror_pcm")


def _described_assignments(body: Mapping[str, Any]) -> Iterable[Said]:
    """Describe what is served, from entries of the assignment and of rollouts that moved it."""
    if not (body["environment"] and body["workload"]):
        return
    name = f"{body['environment']}/{body['workload']}"
    if body["action"] == "assignment.stop_serving":
        yield name, None
        return
    diff = subjects.replayed(body["diff"])
    values = {column: diff[column] for column in _SERVED if column in diff}
    if body["target"]["kind"] == "assignment":
        if "pin" in diff:
            values["pin_reason"] = body["reason"] if diff["pin"] else ""
        yield name, {**values, _TEXT: _CONSISTENT}
    elif body["action"] == "rollout.mirrors":
        yield name, values
    elif _of_rollout(body) and {"baseline", "version"} <= diff.keys():
        # Older entries name only the versions, not how they were served.
        yield name, {**dict.fromkeys(("mode", "share_pcm", "mirror_pcm"), subjects.UNSAID), **values}
    elif _of_rollout(body) and diff.get("revision") is not None:
        yield name, dict.fromkeys(_SERVED, subjects.UNSAID)  # an entry of the first format


def _of_rollout(body: Mapping[str, Any]) -> bool:
    return bool(body["target"]["kind"] == "rollout")


# Routers receive texts stored in the row when it was written. They must match its columns and the catalogue.
_TEXT, _CONSISTENT = "what routers receive", "the same as the columns and the catalogue"


def _assignments() -> Rows:
    prices = prices_by_model()
    rows = Assignment.objects.select_related("environment", "workload", "baseline", "candidate")
    for row in rows.order_by("pk").iterator():
        yield (
            f"{row.environment.name}/{row.workload.name}",
            {
                "baseline": row.baseline.number,
                "candidate": row.candidate and row.candidate.number,
                "pin": row.pin_model,
                "pin_reason": row.pin_reason,
                "mode": row.mode,
                "share_pcm": row.share_pcm,
                "mirror_pcm": row.mirror_pcm,
                _TEXT: ", ".join(differences(row, prices)) or _CONSISTENT,
            },
        )
