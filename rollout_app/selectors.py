"""Find rollouts and plans by id or name, with access checks: 404 if the caller may not see it, 403 if not act on it."""

from collections.abc import Iterable
from uuid import UUID

from django.db.models import QuerySet

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.access.permissions import Principal
from controlplane.core.errors import NotFound
from rollout_app.models import Plan, Rollout


def rollout_for(
    principal: Principal, pk: UUID, *, role: Role = Role.VIEWER, deferred: Iterable[str] = ()
) -> Rollout:
    """Return the rollout, or raise `NotFound` or `Forbidden`. `deferred`: columns to load only on access."""
    rollout = rollouts_for(principal).filter(pk=pk).defer(*deferred).first()
    if rollout is None:
        raise NotFound(f"There is no rollout {pk}, or you may not see it.")
    permissions.require_role(principal, role, rollout.environment.name, workload=rollout.workload.name)
    if role == Role.EDITOR:  # only its owners may propose, amend, submit and cancel
        permissions.require_workload_editor(principal, rollout.workload.owner, rollout.workload.name)
    return rollout


def rollouts_for(principal: Principal) -> QuerySet[Rollout]:
    """Return the rollouts of the environments that the caller may see."""
    rows = Rollout.objects.select_related("environment", "workload__owner", "baseline", "candidate")
    names = permissions.visible_environments(principal)
    return rows if names is None else rows.filter(environment__name__in=names)


def plan_for(name: str) -> Plan:
    plan = Plan.objects.filter(name=name).first()
    if plan is None:
        raise NotFound(f"There is no plan called {name!r}.")
    return plan
