"""Writes to workloads."""

from collections.abc import Mapping
from typing import Any

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.core import clock, reasons
from controlplane.core.actors import Actor
from policies_app.actions.assignments import refuse_under_way, republish_unit
from policies_app.audited_rows import create_row, edit_row
from policies_app.models import Workload

DESCRIBES = {"description"}  # fields that no router and no rollout uses
# Fields that determine what an outcome means: what grades it, and whose tasks are counted together.
MEASURED_BY = {"unit", "success_signal"}
# Fields that an approval covers along with the guardrails (`rollout_app.actions.approvals`).
JUDGED_BY = {"unit", "quality_bar", "success_signal", "outcome_lag_s", "latency_tolerance_ms"}


def register_workload(name: str, *, actor: Actor, reason: str = "", **fields: Any) -> Workload:
    return create_row(Workload(name=name, **fields), "workload.register", actor=actor, reason=reason)


def edit_workload(
    workload: Workload, *, expected: int | None = None, actor: Actor, reason: str = "", **changes: Any
) -> Workload:
    """Change a workload. All but its description affects every environment that serves it (`require_reach`). The
    fields that rollouts are judged by (`JUDGED_BY`) cannot change while a rollout is under way."""

    def guard(workload: Workload, changed: Mapping[str, Any]) -> None:
        if changed.keys() - DESCRIBES:
            require_reach(workload, actor)
        if judging := sorted(JUDGED_BY & changed.keys()):
            reasons.demand(actor, reason, f"This changes how rollouts of {workload.name} are judged")
            refuse_under_way(workload, judging)

    def publish(workload: Workload, changed: Mapping[str, Any]) -> None:
        if MEASURED_BY & changed.keys():
            workload.measured_since = clock.now()
            workload.save(update_fields=["measured_since"])
        if "unit" in changed:
            republish_unit(workload)

    return edit_row(
        workload,
        "workload.edit",
        changes,
        expected=expected,
        actor=actor,
        reason=reason,
        guard=guard,
        then=publish,
    )


def require_reach(workload: Workload, actor: Actor) -> None:
    """Raise `RoleMissing` unless the actor is an editor wherever the workload is served. A change of how it is
    judged affects all of those environments, not only the actor's."""
    places = workload.assignments.values_list("environment__name", flat=True).order_by("environment__name")
    for environment in places:
        permissions.require_role(actor, Role.EDITOR, environment, workload=workload.name)
