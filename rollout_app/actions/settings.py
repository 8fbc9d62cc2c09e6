"""Saved plans and a workload's own guardrails. Changes here do not affect a rollout under way."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, transaction

from controlplane.audit import log
from controlplane.core import reasons
from controlplane.core.actors import Actor
from controlplane.core.errors import AlreadyExists, InvalidInput, NotFound, PreconditionRequired, StaleVersion
from policies_app.actions.workloads import require_reach
from policies_app.models import Workload
from rollout_app.engine import plans
from rollout_app.engine.guardrails import DEFAULT_GUARDRAILS, LEAST_WEIGHT, METRICS
from rollout_app.engine.metrics import RATIOS, Metric
from rollout_app.models import GuardrailOverride, Plan


def add_plan(name: str, stages: Any, *, actor: Actor, description: str = "", reason: str = "") -> Plan:
    plan = Plan(name=name, stages=plans.check(stages), description=description)
    with transaction.atomic():
        try:
            with transaction.atomic():
                plan.save(force_insert=True)
        except IntegrityError:
            raise AlreadyExists(f"There is already a plan called {name!r}.") from None
        log.record(
            actor=actor, action="plan.add", target=("plan", name), reason=reason, after=_plan_values(plan)
        )
    return plan


def edit_plan(
    name: str,
    *,
    actor: Actor,
    expected: int | None = None,
    stages: Any = None,
    description: str | None = None,
    reason: str = "",
) -> Plan:
    """Change a saved plan. Rollouts keep their own copy of its stages."""
    with transaction.atomic():
        plan = _locked_plan(name, expected)
        before = _plan_values(plan)
        plan.stages = plan.stages if stages is None else plans.check(stages)
        plan.description = plan.description if description is None else description
        if _plan_values(plan) == before:
            return plan
        plan.version += 1
        plan.save(update_fields=["stages", "description", "version"])
        log.record(
            actor=actor,
            action="plan.edit",
            target=("plan", name),
            reason=reason,
            before=before,
            after=_plan_values(plan),
        )
    return plan


def remove_plan(name: str, *, actor: Actor, expected: int | None = None, reason: str = "") -> None:
    with transaction.atomic():
        plan = _locked_plan(name, expected)
        before = _plan_values(plan)
        Plan.objects.filter(pk=plan.pk).delete()
        log.record(actor=actor, action="plan.remove", target=("plan", name), reason=reason, before=before)


def _locked_plan(name: str, expected: int | None) -> Plan:
    plan = Plan.objects.select_for_update().filter(name=name).first()
    if plan is None:
        raise NotFound(f"There is no plan called {name!r}.")
    if expected is not None and plan.version != expected:
        raise StaleVersion(f"Plan {name} is at version {plan.version}, not {expected}; read it again.")
    return plan


def _plan_values(plan: Plan) -> dict[str, Any]:
    return {"description": plan.description, "stages": plan.stages, "version": plan.version}


def guardrails_tag(rows: Iterable[GuardrailOverride]) -> str:
    """Identify the state of a workload's own guardrails, for `own_guardrails`."""
    return " ".join(sorted(f"{row.pk}.{row.version}" for row in rows)) or "none"


def own_guardrails(
    workload: Workload, metric: str, *, actor: Actor, expected: str = ""
) -> tuple[GuardrailOverride | None, GuardrailOverride | None]:
    """Lock the workload inside the caller's transaction. Return its own guardrails on a metric: (margin, bound).

    Raises `RoleMissing` if the actor may not change them, and `StaleVersion` if they have changed since their
    `guardrails_tag` was `expected` (empty: any).
    """
    require_reach(workload, actor)
    Workload.objects.select_for_update(no_key=True).get(pk=workload.pk)
    rows = GuardrailOverride.objects.filter(workload=workload, metric=metric)
    if expected and guardrails_tag(rows) != expected:
        raise StaleVersion(
            f"{workload.name}'s guardrail on {Metric(metric).spec.phrase} has changed since you read it."
        )
    by_kind = {row.bound is not None: row for row in rows}
    return by_kind.get(False), by_kind.get(True)


def set_guardrail(
    workload: Workload,
    metric: str,
    *,
    actor: Actor,
    expected: int | None = None,
    reason: str = "",
    enabled: bool = True,
    margin: float | None = None,
    weight: float | None = None,
    bound: float | None = None,
) -> GuardrailOverride:
    """Set a workload's own margin or weight of a guardrail (None: the default), or an absolute `bound`.

    `expected` is the version that was read (0: there is none yet; None: any).
    """
    _checked(metric, margin, weight, bound)
    require_reach(workload, actor)
    with transaction.atomic():
        Workload.objects.select_for_update(no_key=True).get(pk=workload.pk)  # one edit at a time
        row = _override_row(workload, metric, absolute=bound is not None) or GuardrailOverride(
            workload=workload, metric=metric, version=0
        )
        before = _override_values(row) if row.pk else None
        values = {"enabled": enabled, "margin": margin, "weight": weight, "bound": bound}
        if before == {**(before or {}), **values}:
            return row  # also if it is the caller's own change, sent again because the answer was lost
        _require_version(row, expected)
        if _is_weaker(row, enabled=enabled, margin=margin, weight=weight, bound=bound):
            reasons.demand(actor, reason, f"This weakens the guardrail on {Metric(metric).spec.phrase}")
        row.enabled, row.margin, row.weight, row.bound = enabled, margin, weight, bound
        row.version += 1
        row.save()
        _record_override(row, "guardrail.set", before, _override_values(row), actor, reason)
    return row


def _is_weaker(
    row: GuardrailOverride,
    *,
    enabled: bool,
    margin: float | None,
    weight: float | None,
    bound: float | None,
) -> bool:
    """Return whether the change tolerates more harm or lowers the weight. Any change of a bound counts as weaker,
    because its direction depends on the metric.
    """
    standing = {guardrail.metric: guardrail for guardrail in DEFAULT_GUARDRAILS}.get(Metric(row.metric))
    standard_margin, standard_weight = (standing.margin, standing.weight) if standing else (0.0, 0.0)

    def used(given: float | None, standard: float) -> float:
        return standard if given is None else given

    return (
        (not enabled and row.enabled)
        or used(margin, standard_margin) > used(row.margin, standard_margin)
        or used(weight, standard_weight) < used(row.weight, standard_weight)
        or (row.bound is not None and bound != row.bound)
    )


def _require_version(row: GuardrailOverride, expected: int | None) -> None:
    if expected is None or row.version == expected:
        return
    what = f"{row.workload.name}'s own guardrail on {Metric(row.metric).spec.phrase}"
    if not expected:
        raise PreconditionRequired(f"{what} exists: read it, and send its ETag as If-Match.")
    raise StaleVersion(
        f"{what} is at version {row.version}, not {expected}; read it again."
        if row.version
        else f"{what} does not exist any more; read the list again."
    )


def remove_guardrail(
    workload: Workload,
    metric: str,
    *,
    actor: Actor,
    absolute: bool = False,
    expected: int | None = None,
    reason: str = "",
) -> None:
    """Remove a workload's own guardrail: the default applies again, or the absolute one disappears."""
    _checked(metric, None, None, None)
    require_reach(workload, actor)
    reasons.demand(
        actor, reason, f"This removes {workload.name}'s own guardrail on {Metric(metric).spec.phrase}"
    )
    with transaction.atomic():
        row = _override_row(workload, metric, absolute=absolute)
        if row is None:
            raise NotFound(f"{workload.name} has no guardrail of its own on {metric}.")
        _require_version(row, expected)
        before = _override_values(row)
        GuardrailOverride.objects.filter(pk=row.pk).delete()
        _record_override(row, "guardrail.remove", before, None, actor, reason)


def _override_row(workload: Workload, metric: str, *, absolute: bool) -> GuardrailOverride | None:
    return (
        GuardrailOverride.objects.select_for_update()
        .filter(workload=workload, metric=metric, bound__isnull=not absolute)
        .first()
    )


def _checked(metric: str, margin: float | None, weight: float | None, bound: float | None) -> None:
    """Raise `InvalidInput` for values that `guardrails_for` would refuse: such a row would stop every rollout from
    starting.
    """
    problems = []
    if metric not in METRICS:
        problems.append({"path": "metric", "message": f"One of {', '.join(sorted(map(str, METRICS)))}."})
    is_cost = metric == Metric.COST_PER_SUCCESS
    if margin is not None and not 0 < margin < (10 if is_cost else 1):
        what = (
            "A share of the baseline's value, 0.1 = 10 %"
            if metric in RATIOS
            else "A share of tasks, 0.02 = 2 points"
        )
        problems.append({"path": "margin", "message": f"{what}; above 0 and below {10 if is_cost else 1}."})
    if weight is not None and not LEAST_WEIGHT <= weight <= 1:
        problems.append({"path": "weight", "message": f"From {LEAST_WEIGHT:f} up to 1."})
    if bound is not None and not 0 < bound < (1e18 if is_cost else 1):
        what = (
            "Nano-dollars per success, above 0."
            if is_cost
            else "Between 0 and 1: 0.05 = 5 % of tasks, or a score."
        )
        problems.append({"path": "bound", "message": what})
    if problems:
        raise InvalidInput(f"{problems[0]['path']}: {problems[0]['message']}", problems)


def _override_values(row: GuardrailOverride) -> dict[str, Any]:
    return {
        name: getattr(row, name) for name in ("metric", "enabled", "margin", "weight", "bound", "version")
    }


def _record_override(
    row: GuardrailOverride,
    action: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    actor: Actor,
    reason: str,
) -> None:
    log.record(
        actor=actor,
        action=action,
        target=("guardrail", f"{row.workload.name}/{row.metric}"),
        workload=row.workload.name,
        reason=reason,
        before=before,
        after=after,
        evidence={"absolute": row.bound is not None},
    )
