"""Ways to tamper with the rows that entries describe."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, models

from controlplane.access.models import Key, Membership, Team
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Workload
from rollout_app.models import Approval, GuardrailOverride, Plan, Rollout, Transition
from tests.support.tampering.draws import (
    Change,
    Names,
    other_hash,
    other_text,
    sql,
)


def column_of(
    model: type[models.Model],
    column: str,
    label: Callable[[Any], str],
    value: Callable[[random.Random, Any], Any],
    **where: Any,
) -> Change:
    """Another value in one column of one row."""

    def change(rng: random.Random) -> Names:
        row = rng.choice(list(model._default_manager.filter(**where).order_by("pk")))
        labels = {label(row)}
        new = value(rng, getattr(row, column))
        model._default_manager.filter(pk=row.pk).update(**{column: new})
        labels.add(label(model._default_manager.get(pk=row.pk)))
        return labels

    return change


def row_gone(model: type[models.Model], label: Callable[[Any], str], **where: Any) -> Change:
    def change(rng: random.Random) -> Names:
        row = rng.choice(list(model._default_manager.filter(**where).order_by("pk")))
        found = label(row)
        sql(
            f"DELETE FROM {model._meta.db_table} WHERE id = %s",
            model._meta.pk.get_db_prep_value(row.pk, connection),
        )
        return {found}

    return change


def row_twice(
    model: type[models.Model], label: Callable[[Any], str], alter: Callable[[random.Random, Any], None]
) -> Change:
    """A copy of a row with a different value, which no action created."""

    def change(rng: random.Random) -> Names:
        row = rng.choice(list(model._default_manager.order_by("pk")))
        row.pk = None
        row._state.adding = True
        alter(rng, row)
        row.save(force_insert=True)
        return {label(row)}

    return change


def text(rng: random.Random, value: Any) -> str:
    return other_text(rng, str(value), 8)


def number(rng: random.Random, value: Any) -> int:
    return int(value or 0) + rng.randrange(1, 40)


def flipped(rng: random.Random, value: Any) -> bool:
    return not value


def version_label(row: PolicyVersion) -> str:
    return f"version {row.workload.name}/{row.number}"


def rollout_label(row: Rollout) -> str:
    return f"rollout {row.pk}"


def transition_label(row: Transition) -> str:
    return f"transition {row.rollout_id}/{row.sequence}"


def approval_label(row: Approval) -> str:
    what = "the start" if row.stage is None else f"stage {row.stage}"
    return f"approval of {what} of {row.rollout_id} by user {row.approver_user_id} for {row.binding[:16]}"


def membership_label(row: Membership) -> str:
    return f"membership {row.role} of user {row.user_id} in {row.environment or 'every environment'}"


def key_label(row: Key) -> str:
    return f"key {row.key_id}"


def _set(**values: Callable[[random.Random, Any], Any]) -> Callable[[random.Random, Any], None]:
    def alter(rng: random.Random, row: Any) -> None:
        for column, make in values.items():
            setattr(row, column, make(rng, getattr(row, column)))

    return alter


def contributor_gone(rng: random.Random) -> Names:
    row = rng.choice(list(Rollout.objects.exclude(contributors=[]).order_by("pk")))
    gone, *left = row.contributors
    Rollout.objects.filter(pk=row.pk).update(contributors=left)
    return {f"contributor {gone or 'unknown'} of {row.pk}"}


def contributor_more(rng: random.Random) -> Names:
    row = rng.choice(list(Rollout.objects.order_by("pk")))
    Rollout.objects.filter(pk=row.pk).update(contributors=[*row.contributors, "777"])
    return {f"contributor 777 of {row.pk}"}


def team_member(rng: random.Random) -> Names:
    team = Team.objects.get(name="support")
    person = rng.choice(list(User.objects.order_by("pk")))
    team.members.remove(person) if team.members.filter(pk=person.pk).exists() else team.members.add(person)
    return {"team support"}


def assignment_baseline(rng: random.Random) -> Names:
    row = rng.choice(list(Assignment.objects.select_related("environment", "workload").order_by("pk")))
    others = PolicyVersion.objects.exclude(pk=row.baseline_id)
    Assignment.objects.filter(pk=row.pk).update(baseline=rng.choice(list(others.order_by("pk"))))
    return {assignment_label(row)}


def assignment_label(row: Assignment) -> str:
    return f"assignment {row.environment.name}/{row.workload.name}"


def model_label(row: Model) -> str:
    return f"model {row.name}"


def plan_label(row: Plan) -> str:
    return f"plan {row.name}"


def guardrail_label(row: GuardrailOverride) -> str:
    return f"guardrail {row.workload.name}/{row.metric}{'' if row.bound is None else ' (absolute)'}"


def later(rng: random.Random, value: Any) -> datetime:
    return datetime(2040, 1, rng.randrange(1, 28), tzinfo=UTC)


def _version_but(rng: random.Random, value: int) -> int:
    return rng.choice(list(PolicyVersion.objects.exclude(pk=value).order_by("pk"))).pk


def _other_served(rng: random.Random, value: str) -> str:
    """Another policy, pin or revision in the text, or none."""
    said = json.loads(value)
    said[rng.choice(["pin", "candidate", "revision", "unit"])] = {"model": "small", "reason": text(rng, "")}
    return rng.choice([json.dumps(said), "", "{}", value + "}", value.replace("small", "large", 1)])


def _other_prices(rng: random.Random, value: str) -> str:
    said = json.loads(value)
    said[rng.choice(list(said))]["input"] = rng.randrange(10**6)
    return json.dumps(said)


OF_ROWS: dict[str, Change] = {
    "version: its content": column_of(
        PolicyVersion, "canonical", version_label, lambda rng, v: v + " " * rng.randrange(1, 9)
    ),
    "version: its digest": column_of(
        PolicyVersion, "digest", version_label, lambda rng, v: "sha256:" + other_hash(rng)
    ),
    "version: its author": column_of(PolicyVersion, "author_user_id", version_label, text),
    "version: its author's name": column_of(PolicyVersion, "author_label", version_label, text),
    "version: its number": column_of(PolicyVersion, "number", version_label, number),
    "version: its note": column_of(PolicyVersion, "note", version_label, text),
    "version: gone": row_gone(PolicyVersion, version_label),
    "version: one that nobody added": row_twice(
        PolicyVersion, version_label, _set(number=number, digest=lambda rng, v: "sha256:" + other_hash(rng))
    ),
    "rollout: its state": column_of(
        Rollout,
        "state",
        rollout_label,
        lambda rng, v: rng.choice([s for s in ("scheduled", "completed", "cancelled", "rejected") if s != v]),
    ),
    "rollout: its stage": column_of(Rollout, "stage", rollout_label, number),
    "rollout: its version": column_of(Rollout, "version", rollout_label, number, version__gt=1),
    "rollout: its guardrails": column_of(
        Rollout, "guardrails", rollout_label, lambda rng, v: v[1:], version__gt=1
    ),
    "rollout: how it is judged": column_of(
        Rollout, "terms", rollout_label, lambda rng, v: v | {"quality_bar": "0.0100"}, version__gt=1
    ),
    "rollout: four eyes": column_of(Rollout, "four_eyes", rollout_label, flipped, version__gt=1),
    "rollout: its plan": column_of(
        Rollout, "stages", rollout_label, lambda rng, v: [{**v[0], "tolerance": rng.randrange(2, 90)}, *v[1:]]
    ),
    "rollout: its plan's name": column_of(Rollout, "plan_name", rollout_label, text),
    "rollout: its time": column_of(Rollout, "scheduled_for", rollout_label, later),
    "rollout: who sees it first": column_of(Rollout, "salt", rollout_label, text),
    "rollout: its proposer": column_of(Rollout, "proposer_user_id", rollout_label, text),
    "rollout: its proposer's name": column_of(Rollout, "proposer_label", rollout_label, text),
    "rollout: its candidate": column_of(Rollout, "candidate_id", rollout_label, _version_but),
    "rollout: its baseline": column_of(Rollout, "baseline_id", rollout_label, _version_but),
    "rollout: a contributor gone": contributor_gone,
    "rollout: a contributor more": contributor_more,
    "rollout: its reason": column_of(Rollout, "reason", rollout_label, text),
    "rollout: its environment": column_of(
        Rollout,
        "environment_id",
        rollout_label,
        lambda rng, v: Environment.objects.exclude(pk=v).order_by("pk")[0].pk,
    ),
    "rollout: what it reverts": column_of(
        Rollout,
        "reverts_id",
        rollout_label,
        lambda rng, v: Rollout.objects.exclude(pk=v).order_by("pk")[0].pk,
    ),
    "rollout: gone": row_gone(Rollout, rollout_label),
    **{
        f"transition: its {column}": column_of(Transition, column, transition_label, text)
        for column in ("event", "reason", "actor_kind", "actor_label")
    },
    "transition: its revision": column_of(Transition, "revision", transition_label, number),
    "transition: the state after it": column_of(Transition, "after_state", transition_label, text),
    "transition: the state before it": column_of(Transition, "before_state", transition_label, text),
    "transition: the stage before it": column_of(Transition, "before_stage", transition_label, number),
    "transition: the stage after it": column_of(Transition, "after_stage", transition_label, number),
    "transition: its number": column_of(Transition, "sequence", transition_label, number),
    "transition: gone": row_gone(Transition, transition_label),
    "transition: one that never was": row_twice(Transition, transition_label, _set(sequence=number)),
    "approval: its binding": column_of(Approval, "binding", approval_label, lambda rng, v: other_hash(rng)),
    "approval: its approver": column_of(Approval, "approver_user_id", approval_label, text),
    "approval: its approver's name": column_of(Approval, "approver_label", approval_label, text),
    "approval: its reason": column_of(Approval, "reason", approval_label, text),
    "approval: its stage": column_of(Approval, "stage", approval_label, number),
    "approval: given again by hand": column_of(
        Approval, "withdrawn_at", approval_label, lambda rng, v: None, withdrawn_at__isnull=False
    ),
    "approval: taken back by hand": column_of(
        Approval, "withdrawn_at", approval_label, later, withdrawn_at=None
    ),
    "approval: gone": row_gone(Approval, approval_label),
    "approval: one that nobody gave": row_twice(Approval, approval_label, _set(approver_user_id=text)),
    "approval: one given twice": row_twice(Approval, approval_label, _set()),
    "environment: four eyes": column_of(
        Environment, "four_eyes", lambda row: f"environment {row.name}", flipped
    ),
    "environment: its poll interval": column_of(
        Environment, "poll_interval_ms", lambda row: f"environment {row.name}", number
    ),
    "environment: its epoch": column_of(Environment, "epoch", lambda row: f"environment {row.name}", text),
    "environment: a freeze": column_of(
        Environment, "frozen_until", lambda row: f"environment {row.name}", later
    ),
    "environment: its name": column_of(Environment, "name", lambda row: f"environment {row.name}", text),
    "workload: its bar": column_of(
        Workload, "quality_bar", lambda row: f"workload {row.name}", lambda rng, v: "0.0100"
    ),
    "workload: its unit": column_of(
        Workload, "unit", lambda row: f"workload {row.name}", lambda rng, v: "tenant"
    ),
    "workload: its lag": column_of(Workload, "outcome_lag_s", lambda row: f"workload {row.name}", number),
    "key: its scopes": column_of(Key, "scopes", key_label, lambda rng, v: [*v, "admin"]),
    "key: its environment": column_of(Key, "environment", key_label, text),
    "key: its workloads": column_of(Key, "workloads", key_label, lambda rng, v: [text(rng, v)]),
    "key: its secret": column_of(Key, "secret_sha256", key_label, lambda rng, v: other_hash(rng)),
    "key: revoked no more": column_of(
        Key, "revoked_at", key_label, lambda rng, v: None, revoked_at__isnull=False
    ),
    "key: its person": column_of(
        Key,
        "user_id",
        key_label,
        lambda rng, v: rng.choice([pk for pk in User.objects.values_list("pk", flat=True) if pk != v]),
    ),
    "key: its end": column_of(
        Key, "expires_at", key_label, lambda rng, v: datetime(2040, 1, rng.randrange(1, 28), tzinfo=UTC)
    ),
    "key: gone": row_gone(Key, key_label),
    "key: one that nobody issued": row_twice(Key, key_label, _set(key_id=text)),
    "membership: its role": column_of(Membership, "role", membership_label, lambda rng, v: "admin"),
    "membership: its environment": column_of(
        Membership,
        "environment",
        membership_label,
        lambda rng, v: rng.choice([place for place in ("", "staging", "production") if place != v]),
    ),
    "membership: gone": row_gone(Membership, membership_label),
    "membership: one that nobody granted": row_twice(
        Membership, membership_label, _set(environment=text, role=lambda rng, v: "admin")
    ),
    "team: a member": team_member,
    "assignment: its baseline": assignment_baseline,
    "assignment: its pin": column_of(Assignment, "pin_model", assignment_label, text),
    "assignment: why it is pinned": column_of(Assignment, "pin_reason", assignment_label, text),
    "assignment: its share": column_of(Assignment, "share_pcm", assignment_label, number),
    "assignment: its mode": column_of(
        Assignment, "mode", assignment_label, lambda rng, v: "full", mode="percentage"
    ),
    "assignment: its mirrors": column_of(Assignment, "mirror_pcm", assignment_label, number),
    "assignment: what routers receive": column_of(Assignment, "fragment", assignment_label, _other_served),
    "assignment: the prices that routers receive": column_of(
        Assignment, "prices", assignment_label, _other_prices
    ),
    "assignment: gone": row_gone(Assignment, assignment_label),
    "model: its price": column_of(Model, "input_nusd_per_mtok", model_label, number),
    "model: enabled": column_of(Model, "enabled", model_label, flipped),
    "model: its context": column_of(Model, "context_window", model_label, number),
    "model: its name": column_of(Model, "name", model_label, text),
    "model: gone": row_gone(Model, model_label),
    "model: one that nobody added": row_twice(Model, model_label, _set(name=text)),
    "plan: its stages": column_of(
        Plan, "stages", plan_label, lambda rng, v: [*v[:-1], {**v[-1], "tolerance": rng.randrange(2, 90)}]
    ),
    "plan: its words": column_of(Plan, "description", plan_label, text, name="ours"),
    "plan: the words of a saved one": column_of(Plan, "description", plan_label, text, name="cautious"),
    "plan: its name": column_of(Plan, "name", plan_label, text),
    "plan: gone": row_gone(Plan, plan_label, name="ours"),
    "plan: one that nobody saved": row_twice(Plan, plan_label, _set(name=text)),
    "guardrail: off": column_of(GuardrailOverride, "enabled", guardrail_label, flipped),
    "guardrail: its margin": column_of(
        GuardrailOverride, "margin", guardrail_label, lambda rng, v: rng.random() + 1, bound=None
    ),
    "guardrail: its bound": column_of(
        GuardrailOverride, "bound", guardrail_label, lambda rng, v: rng.random() + 1, bound__isnull=False
    ),
    "guardrail: its weight": column_of(
        GuardrailOverride, "weight", guardrail_label, lambda rng, v: rng.random()
    ),
    "guardrail: gone": row_gone(GuardrailOverride, guardrail_label),
    "guardrail: one that nobody set": row_twice(
        GuardrailOverride, guardrail_label, _set(metric=lambda rng, v: text(rng, v))
    ),
}
