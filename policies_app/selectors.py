"""Look up rows by name with permission checks: 404 for what the caller may not see, 403 for what they may not do."""

from collections.abc import Collection

from django.db.models import QuerySet

from controlplane.access import permissions
from controlplane.access.models import Role
from controlplane.access.permissions import Principal
from controlplane.core.errors import NotFound
from policies_app.models import Assignment, Environment, Model, PolicyVersion, Workload


def environment_for(
    principal: Principal, name: str, *, role: Role = Role.VIEWER, workload: str | None = None
) -> Environment:
    """Return an environment. `workload` is the workload that the request is about, if any."""
    environment = Environment.objects.filter(name=name).first()
    if environment is None or not permissions.has_role(principal, Role.VIEWER, name):
        raise NotFound(f"There is no environment {name!r}, or you may not see it.")
    permissions.require_role(principal, role, name, workload=workload)
    return environment


def environments_for(principal: Principal) -> QuerySet[Environment]:
    """Return the environments that the caller may see."""
    names = permissions.visible_environments(principal)
    return Environment.objects.all() if names is None else Environment.objects.filter(name__in=names)


def four_eyes_by_name() -> dict[str, bool]:
    """Return whether each environment requires a second person. Used by the actions that grant roles."""
    return dict(Environment.objects.values_list("name", "four_eyes"))


def workloads_among(names: Collection[str]) -> set[str]:
    """Return the names that belong to workloads."""
    return set(Workload.objects.filter(name__in=names).values_list("name", flat=True))


def workload_for(principal: Principal, name: str, *, edit: bool = False) -> Workload:
    """Return a workload. Anyone with a role may see it; editing requires membership in its owning team."""
    workload = Workload.objects.select_related("owner").filter(name=name).first()
    if workload is None:
        raise NotFound(f"There is no workload {name!r}.")
    if edit:
        permissions.require_workload_editor(principal, workload.owner, workload.name)
    return workload


def version_for(workload: Workload, number: int) -> PolicyVersion:
    version = workload.versions.select_related("workload").filter(number=number).first()
    if version is None:
        raise NotFound(f"{workload.name} has no version {number}.")
    return version


def model_for(name: str) -> Model:
    model = Model.objects.filter(name=name).first()
    if model is None:
        raise NotFound(f"The catalogue has no model {name!r}.")
    return model


def assignment_for(
    principal: Principal, environment: str, workload: str, *, role: Role = Role.VIEWER
) -> Assignment:
    place = environment_for(principal, environment, role=role, workload=workload)
    assignment = (
        Assignment.objects.select_related("environment", "workload", "baseline", "candidate")
        .filter(environment=place, workload__name=workload)
        .first()
    )
    if assignment is None:
        raise NotFound(f"{environment} serves nothing for {workload!r}.")
    return assignment
